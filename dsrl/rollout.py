"""Seeded episodes of a policy, many at once, and how many of them were solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsrl.steerable import SteerablePolicy
from envs.pool import EnvPool
from runtime.intervals import wilson
from runtime.seeds import derive_seed, rng

EPISODE_COLUMNS = ("seed", "solved", "solved_at_the_end", "decisions", "control_steps", "return")

ChooseNoise = Callable[[Tensor, Sequence[int], int], Tensor]
"""w (B, A) for normalised observations (B, F), the episodes' seeds and the number of the decision."""


@dataclass(frozen=True)
class Episodes:
    """K episodes: solved at any control step, solved at the end, decisions and control steps that they took, return.

    Solved at the end: of Robomimic's tasks at every step of the last chunk, of others after the last step.
    """

    seeds: np.ndarray
    successes: np.ndarray
    held: np.ndarray
    decisions: np.ndarray
    control_steps: np.ndarray
    returns: np.ndarray

    @property
    def solved(self) -> int:
        return int(self.successes.sum())

    @property
    def rate(self) -> float:
        return self.solved / len(self.successes)

    def summary(self) -> dict[str, Any]:
        low, high = wilson(self.solved, len(self.successes))
        return {
            "solved": self.solved,
            "episodes": len(self.successes),
            "rate": self.rate,
            "low": low,
            "high": high,
            "solved_at_the_end": int(self.held.sum()),
            "mean_decisions": float(self.decisions.mean()),
            "mean_control_steps": float(self.control_steps.mean()),
            "mean_return": float(self.returns.mean()),
        }

    def rows(self) -> list[dict[str, float]]:
        """The table, an episode a row."""
        columns = (self.seeds, self.successes, self.held, self.decisions, self.control_steps)
        rows = [dict(zip(EPISODE_COLUMNS, (int(v) for v in row), strict=False)) for row in zip(*columns, strict=True)]
        return [{**row, "return": float(total)} for row, total in zip(rows, self.returns, strict=True)]


def episode_seeds(seed: int, count: int, purpose: str = "evaluation") -> list[int]:
    return [derive_seed(purpose, seed, number) for number in range(count)]


class Prior:
    """w ~ N(0, I), drawn for each episode by its own generator: an episode does not depend on those beside it."""

    def __init__(self, noise_dim: int) -> None:
        self.noise_dim = noise_dim
        self._generators: dict[int, np.random.Generator] = {}

    def __call__(self, seen: Tensor, seeds: Sequence[int], decision: int) -> Tensor:
        if decision == 0:
            self._generators = {seed: rng("noise", seed) for seed in seeds}
        draws = [self._generators[seed].standard_normal(self.noise_dim, dtype=np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(draws)).to(seen.device)


def open_environments(
    policy: SteerablePolicy, num_envs: int, *, workers: int = 0, horizon: int = 400, until_success: bool = True
) -> EnvPool:
    return EnvPool(
        policy.task,
        num_envs,
        workers=workers,
        horizon=horizon,
        chunk=policy.chunk,
        keys=policy.keys,
        until_success=until_success,
    )


def run_episodes(
    policy: SteerablePolicy,
    environments: EnvPool,
    seeds: Sequence[int],
    choose: ChooseNoise | None = None,
    progress: Callable[[int], None] | None = None,
) -> Episodes:
    """One episode per seed, `environments.num_envs` at a time, w by `choose` (default: the prior)."""
    choose = choose or Prior(policy.noise_dim)
    parts = []
    for start in range(0, len(seeds), environments.num_envs):
        batch = list(seeds[start : start + environments.num_envs])
        observations = environments.reset(batch)
        running = np.ones(len(batch), bool)
        success, held = np.zeros(len(batch), bool), np.zeros(len(batch), bool)
        decisions, steps, returns = np.zeros(len(batch), int), np.zeros(len(batch), int), np.zeros(len(batch))
        decision = 0
        while running.any():
            seen = policy.features(observations)
            actions = policy.to_actions(policy.denoise(seen, choose(seen, batch, decision)))
            observations, rewards, terminated, truncated, solved = environments.step(actions)
            success[running] |= solved[running]
            infos = environments.infos
            # Of a task whose environment does not say so, each control step of the last chunk must be solved.
            at_end = np.array([info.get("held", won >= policy.chunk) for info, won in zip(infos, rewards, strict=True)])
            held[running] = at_end[running]
            decisions[running] += 1
            steps[running] += np.array([info["executed"] for info in infos])[running]
            returns[running] += rewards[running]
            running &= ~(terminated | truncated)
            decision += 1
        parts.append((np.array(batch), success, held, decisions, steps, returns))
        if progress:
            progress(len(batch))
    return Episodes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
