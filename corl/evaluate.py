"""How well a policy does in an environment, on seeded episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.errors import DataError
from runtime.seeds import rng


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


class ActionNoise:
    """Normal noise on actions (K, A), from a generator per episode."""

    _BLOCK = 256  # steps that are drawn together

    def __init__(self, scale: float, seeds: Sequence[int]) -> None:
        self.scale = scale
        self._generators = [rng("act", seed) for seed in seeds]
        self._block: np.ndarray | None = None
        self._step = 0

    def on(self, actions: np.ndarray) -> np.ndarray:
        """The actions with this step's noise, within [-1, 1]."""
        at = self._step % self._BLOCK
        if at == 0:
            shape = (self._BLOCK, actions.shape[1])
            self._block = np.stack([generator.standard_normal(shape, np.float32) for generator in self._generators], 1)
        self._step += 1
        return np.clip(actions + self.scale * self._block[at], -1.0, 1.0)


def finite(actions: np.ndarray, whose: str) -> np.ndarray:
    """The actions. Raises `DataError` where some are not numbers: learning has diverged, or weights are damaged."""
    if not np.isfinite(actions).all():
        raise DataError(f"{whose} gives actions that are not finite; learn with smaller learning rates")
    return actions


def evaluate(
    policy: Callable[[np.ndarray], np.ndarray], environment: VectorEnvironment, seeds: Sequence[int]
) -> Evaluation:
    """Run one episode per seed, `environment.num_envs` at a time. Success is that of an episode's last step.

    A policy with `act_noise` acts with it; an episode's noise depends on its seed alone.
    """
    scale = getattr(policy, "act_noise", 0.0)
    returns, successes = [], []
    for start in range(0, len(seeds), environment.num_envs):
        chunk = list(seeds[start : start + environment.num_envs])
        observations = environment.reset(chunk)
        noise = ActionNoise(scale, chunk) if scale else None
        total = np.zeros(len(chunk))
        success = np.zeros(len(chunk), dtype=bool)
        running = np.ones(len(chunk), dtype=bool)
        while running.any():
            actions = policy(observations)
            if noise:
                actions = noise.on(actions)
            observations, rewards, terminated, truncated, succeeded = environment.step(actions)
            total[running] += rewards[running]
            success[running] = succeeded[running]
            running &= ~(terminated | truncated)
        returns.append(total)
        successes.append(success)
    return Evaluation(np.concatenate(returns), np.concatenate(successes))
