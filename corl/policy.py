"""A trained policy with everything that it needs to act: network, normalisation of states, sizes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corl.evaluate import finite
from corl.networks import Actor, EnsembleActor
from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.transitions import canonical_quaternions
from runtime.checkpoint import load_checkpoint, replace_torch
from runtime.errors import DataError

log = logging.getLogger(__name__)


class Policy:
    """Raw states (B, 77) float32 to actions (B, 8) float32 in [-1, 1].

    `canonical`: the networks learned from relative quaternions of one sign. `act_noise`: the standard deviation of the
    noise with which the policy is to act, which `evaluate` adds. Raises `DataError` for actions that are not
    finite.
    """

    def __init__(
        self,
        actor: Actor,
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
        states = np.asarray(observations, np.float32)
        if self.canonical:
            states = canonical_quaternions(states, self.layout)
        states = (states - self._mean) / self._std
        return finite(self.actor(torch.from_numpy(states).to(self.device)).cpu().numpy(), "the policy")

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout = COMPOSUITE) -> Policy:
        """A policy from a checkpoint of `save_checkpoint`. Raises `DataError` where it is not one."""
        checkpoint = load_checkpoint(path)
        acting = checkpoint.get("acting", "actor")
        missing = [key for key in (acting, "hidden", "state_mean", "state_std") if key not in checkpoint]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}, expected a checkpoint of a trained policy")
        try:
            actor = make_actor(layout, checkpoint[acting], checkpoint["hidden"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a policy for this layout ({str(error).splitlines()[0]})") from error
        mean, std = checkpoint["state_mean"].numpy(), checkpoint["state_std"].numpy()
        settings = {"canonical": checkpoint.get("canonical", True), "act_noise": checkpoint.get("act_noise", 0.0)}
        return cls(actor, mean, std, layout, **settings)


def make_actor(layout: FactoredLayout, weights: Mapping[str, torch.Tensor], hidden: Sequence[int]) -> Actor:
    """An actor with these weights on the CPU; of a Gaussian one its mean, of an ensemble all members."""
    if "weights.0" in weights:
        actor = EnsembleActor(layout.state_dim, layout.action_dim, hidden, range(len(weights["weights.0"])))
    else:
        actor = Actor(layout.state_dim, layout.action_dim, hidden)
    actor.load_state_dict({key: value for key, value in weights.items() if key != "log_std"})
    return actor.requires_grad_(False)


def save_checkpoint(path: Path, values: Mapping[str, Any], *, hidden: Sequence[int], data: Any) -> None:
    """Write networks and optimisers together with the state normalisation of `data`, readable with weights_only."""
    checkpoint = {
        **values,
        "hidden": list(hidden),
        "state_mean": torch.from_numpy(data.mean),
        "state_std": torch.from_numpy(data.std),
        "canonical": data.canonical,
    }
    replace_torch(checkpoint, path)


def load_resume(path: Path, key: str | None) -> dict[str, Any] | None:
    """What an earlier run of the same `key` (its inputs and settings) left to continue from, if anything.

    Raises `DataError` for a file that is not a checkpoint.
    """
    state = load_checkpoint(path) if path.exists() else None
    if state and state.get("key") != key:
        log.warning("%s: made from other inputs or settings; training starts anew", path)
        return None
    return state
