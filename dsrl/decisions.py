"""Stored decisions: rows with what was seen, done and got, and the rewards of several in a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from corl.batch import Batch


class Decisions(Protocol):
    """Rows (N, E): in each of E columns one decision after the other. stable-baselines3's replay buffer is one.

    observations, next_observations (N, E, F), actions (N, E, A), rewards, dones, timeouts (N, E). A column's rows run
    on from the last to the first, but not into row `pos`, where the next decision will stand.
    """

    observations: np.ndarray
    next_observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    timeouts: np.ndarray
    buffer_size: int
    n_envs: int
    pos: int

    def size(self) -> int: ...


class Drawn(NamedTuple):
    """A batch with where its rows stand: `rows` (B,) those of its states, `next_rows` (B,) of its next states."""

    batch: Batch
    rows: np.ndarray
    next_rows: np.ndarray


@dataclass
class OfflineDecisions:
    """Decisions that were recorded elsewhere, of many episodes one after the other, as `Decisions` with one column.

    float32: observations, next_observations (N, F), actions (N, A), rewards (N,); `dones` (N,) 1 at an episode's last
    decision, `timeouts` (N,) 1 where that was not the end of the task.
    """

    observations: np.ndarray
    next_observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    timeouts: np.ndarray
    n_envs: int = field(default=1, init=False)
    pos: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            setattr(self, name, np.asarray(getattr(self, name), np.float32)[:, None])
        if len(self.dones):
            self.timeouts[-1] = np.maximum(self.timeouts[-1], 1 - self.dones[-1])
            self.dones[-1] = 1  # what follows the last row is another episode

    @property
    def buffer_size(self) -> int:
        return len(self.rewards)

    def size(self) -> int:
        return len(self.rewards)


def n_step(
    stored: Decisions, step: np.ndarray, env: np.ndarray, n: int, discount: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discounted rewards (B,) of the `n` decisions from rows (step, env) on, fewer where the episode or the rows end.

    Also the last of these rows (B,), and what is left of the value of its next state (B,): (1 - end) discount^(k - 1)
    after k decisions, where the end of time is not the end of the task.
    """
    rewards, last, left = stored.rewards[step, env], step, np.ones(len(step), np.float32)
    for _ in range(1, n):
        after = (last + 1) % stored.buffer_size
        goes_on = (stored.dones[last, env] == 0) & (after != stored.pos)
        left = np.where(goes_on, left * np.float32(discount), left)
        last = np.where(goes_on, after, last)
        rewards = rewards + goes_on * left * stored.rewards[last, env]
    left = left * (1 - stored.dones[last, env] * (1 - stored.timeouts[last, env]))
    return rewards, last, left
