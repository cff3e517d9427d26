"""What a network sees of a simulator's state: fitted on data, applied to states and transitions, kept with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from runtime.errors import DataError

STD_OFFSET = 1e-3
"""Is added to every standard deviation: what does not vary in the data is not divided by 0."""

EXPLORERS_LEAST_STD = 0.1
"""For states that an agent explores: a demonstrator's hand hardly turns, so with its own deviation alone a turn of the
explorer's would be magnified a thousandfold; so it is at most tenfold."""


@dataclass(frozen=True, eq=False)
class StateTransform:
    """States (.., 77) to what a network sees: quaternions of one sign, (s - mean) / std, and the task's ids if wanted.

    `mean`, `std` (77,) float32; a hidden entry has an infinite `std` and reads 0. `canonical_quaternions`: see
    `canonicalise`. With `task_ids` the one-hots of the task, which are never scaled, make an observation
    (.., 93) of it.
    """

    layout: FactoredLayout
    mean: np.ndarray
    std: np.ndarray
    canonical_quaternions: bool = True
    task_ids: bool = False

    @classmethod
    def unscaled(
        cls, layout: FactoredLayout, *, canonical_quaternions: bool = True, task_ids: bool = False
    ) -> StateTransform:
        """States as they are but for signs and ids."""
        mean, std = np.zeros(layout.state_dim, np.float32), np.ones(layout.state_dim, np.float32)
        return cls(layout, mean, std, canonical_quaternions, task_ids)

    @classmethod
    def fit(
        cls,
        states: np.ndarray,
        layout: FactoredLayout,
        *,
        hide_velocities: bool = False,
        canonical_quaternions: bool = True,
        task_ids: bool = False,
        least_std: float | None = None,
    ) -> StateTransform:
        """By the mean and the population standard deviation of states (N, 77).

        To the deviation `STD_OFFSET` is added; with `least_std` it is at least that instead. With `hide_velocities`
        these read 0: a demonstrator's velocity echoes its last action, and a clone that sees it learns to go on as
        before instead of where to go (the copycat problem; de Haan et al. 2019, "Causal confusion in imitation
        learning").
        """
        states = np.asarray(states, np.float32)
        if canonical_quaternions:
            states = canonicalise(states, layout)
        mean, std = states.mean(axis=0, dtype=np.float64), states.std(axis=0, dtype=np.float64)
        std = std + STD_OFFSET if least_std is None else std.clip(min=least_std)
        if hide_velocities:
            for part in layout.velocities:
                std[part] = np.inf
        return cls(layout, mean.astype(np.float32), std.astype(np.float32), canonical_quaternions, task_ids)

    @property
    def dim(self) -> int:
        """How many numbers the network sees."""
        return self.layout.observation_dim if self.task_ids else self.layout.state_dim

    def scaled(self, states: np.ndarray) -> np.ndarray:
        """States (.., 77) without ids, float32."""
        states = np.asarray(states, np.float32)
        if self.canonical_quaternions:
            states = canonicalise(states, self.layout)
        scaled: np.ndarray = (states - self.mean) / self.std
        return scaled

    def apply(self, states: np.ndarray, task: Task | None = None) -> np.ndarray:
        """States (.., 77) to (.., dim) float32; `task` gives the ids where they are wanted."""
        scaled = self.scaled(states)
        if not self.task_ids:
            return scaled
        assert task is not None, "the ids of a task are wanted"
        return self.layout.join_ids(scaled, task.one_hot)

    def apply_to_transitions(self, matrix: np.ndarray) -> None:
        """Change s and s' in transitions (N, 164) float32 in place, without ids."""
        for part in self.layout.states:
            matrix[:, part] = self.scaled(matrix[:, part])

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, which any checkpoint may hold: float32 has its exact float."""
        return {
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "canonical_quaternions": self.canonical_quaternions,
            "task_ids": self.task_ids,
        }

    @classmethod
    def load(cls, saved: Any, layout: FactoredLayout, source: str, *, with_ids: bool = False) -> StateTransform:
        """Of a `state_dict`. Raises `DataError`, which begins with `source`, where it is none for this layout, or
        its observations have ids where none are expected, or the other way round."""
        if not isinstance(saved, Mapping):
            raise DataError(f"{source}: is a {type(saved).__name__}, expected mean, std and two flags")
        mean, std = (_numbers(saved, name, layout.state_dim, source) for name in ("mean", "std"))
        if not np.isfinite(mean).all():
            raise DataError(f"{source}: mean has numbers that are not finite")
        if not (std > 0).all():  # infinite where hidden
            raise DataError(f"{source}: std has numbers that are not above 0")
        canonical, task_ids = (saved.get(name) for name in ("canonical_quaternions", "task_ids"))
        if not isinstance(canonical, bool) or not isinstance(task_ids, bool):
            raise DataError(
                f"{source}: canonical_quaternions, task_ids are {[canonical, task_ids]}, expected true or false"
            )
        if task_ids != with_ids:
            raise DataError(f"{source}: task_ids is {task_ids}, expected {with_ids}")
        return cls(layout, mean, std, canonical, task_ids)


def canonicalise(states: np.ndarray, layout: FactoredLayout) -> np.ndarray:
    """A copy of states (.., 77) whose relative quaternions all have the same sign.

    A quaternion and its negative are the same rotation. The simulator keeps w >= 0, but with the hand turned down w is
    about 0 and x about +-1, so that the sign flips at random from step to step; here x >= 0 instead.
    """
    states = states.copy()
    for part in layout.relative_quaternions:
        quaternion = states[..., part]
        quaternion *= np.where(quaternion[..., :1] < 0, -1, 1).astype(states.dtype)
    return states


def canonicalise_transitions(matrix: np.ndarray, layout: FactoredLayout) -> None:
    """`canonicalise` s and s' of transitions (N, 164) in place."""
    for part in layout.states:
        matrix[:, part] = canonicalise(matrix[:, part], layout)


def _numbers(saved: Mapping[str, Any], name: str, size: int, source: str) -> np.ndarray:
    values = saved.get(name)
    if not isinstance(values, list) or len(values) != size or not all(type(value) is float for value in values):
        found = f"a list of {len(values)}" if isinstance(values, list) else f"a {type(values).__name__}"
        raise DataError(f"{source}: {name} is {found}, expected a list of {size} real numbers")
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)
