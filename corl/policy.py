"""A trained policy with everything that it needs to act: network, normalisation of states, sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corl.evaluate import finite
from corl.networks import Actor, EnsembleActor
from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.transitions import canonical_quaternions
from runtime.checkpoint import build_within, entry, expect_finite, load_checkpoint, load_weights, replace_torch, vector
from runtime.errors import DataError


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
        return finite(self.actor(self._normalised(observations)).cpu().numpy(), "the policy")

    @torch.no_grad()
    def each(self, observations: np.ndarray) -> np.ndarray:
        """(M, B, 8) the actions of every member of an ensemble."""
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
        acting = checkpoint.get("acting", "actor")
        missing = [key for key in (acting, "hidden", "state_mean", "state_std") if key not in checkpoint]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}, expected a checkpoint of a trained policy")
        hidden = entry(checkpoint, "hidden", (list, tuple), path)
        if not all(type(size) is int and size > 0 for size in hidden):
            raise DataError(f"{path}: hidden is {hidden}, expected sizes of layers")
        weights = entry(checkpoint, acting, Mapping, path)
        members = weights.get("weights.0")
        if members is not None and not (isinstance(members, torch.Tensor) and members.ndim and len(members)):
            raise DataError(f"{path}: {acting} has no members under weights.0")
        actor = build_within(path, lambda: _empty_actor(layout, weights, hidden))
        load_weights(actor, _mean_alone(weights), path, acting)
        mean, std = load_normalisation(checkpoint, layout, path)
        canonical = entry({"canonical": True, **checkpoint}, "canonical", bool, path)
        act_noise = entry({"act_noise": 0.0, **checkpoint}, "act_noise", (float, int), path)
        if not 0 <= act_noise < math.inf:
            raise DataError(f"{path}: act_noise {act_noise}, expected at least 0")
        return cls(actor.requires_grad_(False), mean, std, layout, canonical=canonical, act_noise=act_noise)


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


def make_actor(layout: FactoredLayout, weights: Mapping[str, torch.Tensor], hidden: Sequence[int]) -> Actor:
    """An actor with these weights on the CPU; of a Gaussian one its mean, of an ensemble all members."""
    actor = _empty_actor(layout, weights, hidden)
    actor.load_state_dict(_mean_alone(weights))
    return actor.requires_grad_(False)


def _empty_actor(layout: FactoredLayout, weights: Mapping[str, torch.Tensor], hidden: Sequence[int]) -> Actor:
    """An actor of the kind that has such weights: with `weights.0` (members, ...) an ensemble."""
    if "weights.0" in weights:
        return EnsembleActor(layout.state_dim, layout.action_dim, hidden, range(len(weights["weights.0"])))
    return Actor(layout.state_dim, layout.action_dim, hidden)


def _mean_alone(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of an actor without a Gaussian one's deviation."""
    return {key: value for key, value in weights.items() if key != "log_std"}


def save_checkpoint(path: Path, values: Mapping[str, Any], *, hidden: Sequence[int], data: Any) -> None:
    """Write networks and optimisers together with the state normalisation of `data`, readable with weights_only.

    Raises `DataError` where they are not finite.
    """
    expect_finite(values, f"{path}: what was to be written")
    checkpoint = {
        **values,
        "hidden": list(hidden),
        "state_mean": torch.from_numpy(data.mean),
        "state_std": torch.from_numpy(data.std),
        "canonical": data.canonical,
    }
    replace_torch(checkpoint, path)
