"""Endless episodes in a vectorised environment, which can be brought back after a kill to where they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from corl.evaluate import VectorEnvironment
from runtime.seeds import derive_seed


class RestartableEnvironment(VectorEnvironment, Protocol):
    """A vectorised environment of which single episodes can be started anew."""

    def restart(self, seeds: Sequence[int | None]) -> np.ndarray: ...


class EpisodeStream:
    """`num_envs` seeded episodes after one another, each environment at its own pace.

    The simulator's state is not saved: it follows from an episode's seed and its actions, which are.
    """

    def __init__(self, environment: RestartableEnvironment, *, seed: int, action_dim: int) -> None:
        self.environment, self.seed, self.action_dim = environment, seed, action_dim
        self.numbers = [0] * environment.num_envs
        self.actions: list[list[np.ndarray]] = [[] for _ in self.numbers]
        self.returns = np.zeros(environment.num_envs)
        self.states = environment.reset([self._seed(i) for i in range(environment.num_envs)])

    def _seed(self, i: int) -> int:
        return derive_seed("episode", self.seed, i, self.numbers[i])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[float, int, bool]]]:
        """Rewards (E,), next states (E, 77), terminated (E,); return, length, success of ended episodes.

        Ended episodes are replaced: `states` are those to act in next, not the next states of the step.
        """
        next_states, rewards, terminated, truncated, successes = self.environment.step(actions)
        self.returns += rewards
        seeds: list[int | None] = [None] * len(actions)
        ended = []
        for i, action in enumerate(actions):
            self.actions[i].append(np.array(action, np.float32))
            if terminated[i] or truncated[i]:
                ended.append((float(self.returns[i]), len(self.actions[i]), bool(successes[i])))
                self.numbers[i] += 1
                self.actions[i], self.returns[i], seeds[i] = [], 0.0, self._seed(i)
        self.states = self.environment.restart(seeds) if ended else next_states
        return rewards, next_states, terminated, ended

    def state_dict(self) -> dict[str, Any]:
        actions = [torch.from_numpy(np.stack(own)) if own else torch.empty(0, self.action_dim) for own in self.actions]
        return {"numbers": list(self.numbers), "actions": actions, "returns": torch.from_numpy(self.returns.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Run the episodes that were under way again, all ending at their present step."""
        self.numbers = list(state["numbers"])
        self.actions = [list(own.numpy()) for own in state["actions"]]
        self.returns = state["returns"].numpy().copy()
        lengths = [len(own) for own in self.actions]
        longest = max(lengths)
        seeds = [self._seed(i) for i in range(len(lengths))]
        self.states = self.environment.reset(seeds)
        for t in range(longest):
            due = [longest - length == t for length in lengths]
            if any(due):
                self.environment.restart([seed if now else None for seed, now in zip(seeds, due, strict=True)])
            idle = np.zeros(self.action_dim, np.float32)
            step = [
                own[t - (longest - len(own))] if t >= longest - len(own) else idle
                for own in self.actions
            ]  # fmt: skip
            self.states = self.environment.step(np.stack(step))[0]
        if 0 in lengths and longest:
            self.states = self.environment.restart(
                [seed if length == 0 else None for seed, length in zip(seeds, lengths, strict=True)]
            )
