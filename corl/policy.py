"""A trained policy with everything that it needs to act: network, normalisation of states, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from corl.config import PolicyConfig
from corl.evaluate import finite
from corl.learners import LEARNERS
from corl.replay import ReplayData
from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.transitions import canonical_quaternions
from runtime.checkpoint import entry, expect_finite, load_checkpoint, replace_torch, vector
from runtime.config import from_mapping, to_dict
from runtime.errors import DataError


class Policy:
    """Raw states (B, 77) float32 to actions (B, 8) float32 in [-1, 1].

    `canonical`: the networks learned from relative quaternions of one sign. `act_noise`: the standard deviation of the
    noise with which the policy is to act, which `evaluate` adds. Raises `DataError` for actions that are not
    finite.
    """

    def __init__(
        self,
        actor: nn.Module,
        state_mean: np.ndarray,
        state_std: np.ndarray,
        layout: FactoredLayout = COMPOSUITE,
        device: torch.device | str = "cpu",
        *,
        canonical: bool = True,
        act_noise: float = 0.0,
    ) -> None:
        self.canonical, self.act_noise = canonical, act_noise
        self.actor, self.layout, self.device = actor, layout, torch.device(device)
        self._mean, self._std = state_mean, state_std

    @torch.no_grad()
    def __call__(self, observations: np.ndarray) -> np.ndarray:
        return finite(self.actor(self._normalised(observations)).cpu().numpy(), "the policy")

    @torch.no_grad()
    def each(self, observations: np.ndarray) -> np.ndarray:
        """(M, B, 8) the actions of every member of an ensemble (or of an actor alone)."""
        return finite(self.actor(self._normalised(observations), True).cpu().numpy(), "the policy")

    def _normalised(self, observations: np.ndarray) -> torch.Tensor:
        states = np.asarray(observations, np.float32)
        if self.canonical:
            states = canonical_quaternions(states, self.layout)
        return torch.from_numpy((states - self._mean) / self._std).to(self.device)

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout = COMPOSUITE) -> Policy:
        """A policy from a checkpoint of `save_checkpoint`. Raises `DataError` where it is not one."""
        checkpoint = load_checkpoint(path)
        missing = [key for key in ("algorithm", "learner", "state_mean", "state_std") if key not in checkpoint]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}, expected a checkpoint of a trained policy")
        algorithm = entry(checkpoint, "algorithm", str, path)
        if algorithm not in LEARNERS:
            raise DataError(f"{path}: algorithm {algorithm!r}, expected one of {', '.join(LEARNERS)}")
        learner = LEARNERS[algorithm]
        config = from_mapping(learner.Config, entry(checkpoint, "learner", Mapping, path), source=f"{path}: learner")
        weights = entry(checkpoint, learner.acting, Mapping, path)
        actor = learner.load(layout.state_dim, layout.action_dim, config, weights, path)
        mean, std = load_normalisation(checkpoint, layout, path)
        canonical = entry({"canonical": True, **checkpoint}, "canonical", bool, path)
        act_noise = entry({"act_noise": 0.0, **checkpoint}, "act_noise", (float, int), path)
        if not 0 <= act_noise < math.inf:
            raise DataError(f"{path}: act_noise {act_noise}, expected at least 0")
        return cls(actor, mean, std, layout, canonical=canonical, act_noise=act_noise)


def load_normalisation(
    checkpoint: Mapping[str, Any], layout: FactoredLayout, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of states, each (S,) float32; a hidden velocity's deviation is infinite.

    Raises `DataError` where these are not in the checkpoint.
    """
    mean = vector(checkpoint, "state_mean", layout.state_dim, path)
    std = vector(checkpoint, "state_std", layout.state_dim, path, infinite=True)
    if not (std > 0).all():
        raise DataError(f"{path}: state_std has numbers that are not above 0")
    return mean.numpy(), std.numpy()


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
        "state_mean": torch.from_numpy(data.mean),
        "state_std": torch.from_numpy(data.std),
        "canonical": data.canonical,
    }
    replace_torch(checkpoint, path)
