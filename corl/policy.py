"""A trained policy with everything that it needs to act: network, what it sees of states, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from corl.acting import AS_IT_IS, Acting
from corl.config import PolicyConfig
from corl.evaluate import finite
from corl.learners import LEARNERS
from corl.replay import ReplayData
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.checkpoint import entry, expect_finite, load_checkpoint, replace_torch
from runtime.config import from_mapping, to_dict
from runtime.errors import DataError


class Policy:
    """Raw states (B, 77) float32 to actions (B, 8) float32 in [-1, 1].

    `transform` gives what the actor sees. `acting`: how the policy is to act, which `evaluate` does. Raises `DataError`
    for actions that are not finite.
    """

    def __init__(
        self,
        actor: nn.Module,
        transform: StateTransform,
        device: torch.device | str = "cpu",
        *,
        acting: Acting = AS_IT_IS,
    ) -> None:
        self.actor, self.transform, self.device, self.acting = actor, transform, torch.device(device), acting

    @torch.no_grad()
    def __call__(self, states: np.ndarray) -> np.ndarray:
        return finite(self.actor(self._seen(states)).cpu().numpy(), "the policy")

    @torch.no_grad()
    def each(self, states: np.ndarray) -> np.ndarray:
        """(M, B, 8) the actions of every member of an ensemble (or of an actor alone)."""
        return finite(self.actor(self._seen(states), True).cpu().numpy(), "the policy")

    def _seen(self, states: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.transform.apply(states)).to(self.device)

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout) -> Policy:
        """A policy from a checkpoint of `save_checkpoint`. Raises `DataError` where it is not one."""
        checkpoint = load_checkpoint(path)
        missing = [key for key in ("algorithm", "learner", "states") if key not in checkpoint]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}, expected a checkpoint of a trained policy")
        algorithm = entry(checkpoint, "algorithm", str, path)
        if algorithm not in LEARNERS:
            raise DataError(f"{path}: algorithm {algorithm!r}, expected one of {', '.join(LEARNERS)}")
        learner = LEARNERS[algorithm]
        config = from_mapping(learner.Config, entry(checkpoint, "learner", Mapping, path), source=f"{path}: learner")
        weights = entry(checkpoint, learner.acting, Mapping, path)
        actor = learner.load(layout.state_dim, layout.action_dim, config, weights, path)
        transform = StateTransform.load(checkpoint["states"], layout, f"{path}: states")
        act_noise = entry({"act_noise": 0.0, **checkpoint}, "act_noise", (float, int), path)
        if not 0 <= act_noise < math.inf:
            raise DataError(f"{path}: act_noise {act_noise}, expected at least 0")
        binary_hold = entry({"binary_hold": 0, **checkpoint}, "binary_hold", int, path)
        if binary_hold < 0:
            raise DataError(f"{path}: binary_hold {binary_hold}, expected at least 0")
        return cls(actor, transform, acting=Acting(act_noise, binary_hold, layout.binary_actions))


def checkpoint_file(folder: Path, algorithm: str, which: str) -> Path:
    """`which` is `best_eval` (highest mean return) or `best_successrate`."""
    return folder / f"{algorithm}_policy_model_{which}.pt"


def save_checkpoint(path: Path, values: Mapping[str, Any], config: PolicyConfig, data: ReplayData) -> None:
    """Write networks and optimisers with what a policy needs to act, readable with weights_only.

    Raises `DataError` where they are not finite.
    """
    expect_finite(values, f"{path}: what was to be written")
    checkpoint = {
        **values,
        "algorithm": config.algorithm,
        "learner": to_dict(config.learner),
        "act_noise": config.act_noise,
        "binary_hold": config.binary_hold,
        "states": data.transform.state_dict(),
    }
    replace_torch(checkpoint, path)
