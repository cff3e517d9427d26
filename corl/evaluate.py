"""How well a policy does in an environment, on seeded episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from corl.acting import AS_IT_IS
from runtime.errors import DataError


class VectorEnvironment(Protocol):
    """What evaluation needs of a vectorised environment; ended episodes stay ended until `reset`."""

    num_envs: int

    def reset(self, seeds: Sequence[int]) -> np.ndarray: ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Evaluation:
    """Returns (K,) and successes at the last step (K,) of K episodes."""

    returns: np.ndarray
    successes: np.ndarray

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def solved(self) -> int:
        """Number of successful episodes."""
        return int(self.successes.sum())

    @property
    def success_rate(self) -> float:
        return self.solved / self.episodes

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())


def finite(actions: np.ndarray, whose: str) -> np.ndarray:
    """The actions. Raises `DataError` where some are not numbers: learning has diverged, or weights are damaged."""
    if not np.isfinite(actions).all():
        raise DataError(f"{whose} gives actions that are not finite; learn with smaller learning rates")
    return actions


def evaluate(
    policy: Callable[[np.ndarray], np.ndarray], environment: VectorEnvironment, seeds: Sequence[int]
) -> Evaluation:
    """Run one episode per seed, `environment.num_envs` at a time. Success is that of an episode's last step.

    A policy with `acting` acts so; how an episode's actions vary depends on its seed alone.
    """
    acting = getattr(policy, "acting", AS_IT_IS)
    returns, successes = [], []
    for start in range(0, len(seeds), environment.num_envs):
        chunk = list(seeds[start : start + environment.num_envs])
        observations = environment.reset(chunk)
        variation = acting.begin(chunk)
        total = np.zeros(len(chunk))
        success = np.zeros(len(chunk), dtype=bool)
        running = np.ones(len(chunk), dtype=bool)
        while running.any():
            actions = variation.on(policy(observations))
            observations, rewards, terminated, truncated, succeeded = environment.step(actions)
            total[running] += rewards[running]
            success[running] = succeeded[running]
            running &= ~(terminated | truncated)
        returns.append(total)
        successes.append(success)
    return Evaluation(np.concatenate(returns), np.concatenate(successes))
