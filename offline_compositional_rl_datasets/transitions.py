"""Transitions of one or many tasks as a dataclass of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from runtime.errors import DataError

TERMINAL_THRESHOLD = 0.5
"""A generated terminal, a real number, counts as an end above this."""

PUBLISHED_KEYS = {"states": "observations", "next_states": "next_observations"}
"""What files call the arrays that have another name here; there, too, they are without task ids."""

EpisodeEnds = Literal["drop", "self", "reference"]
"""What becomes of an episode's last step, of which files have no next observation: see `hdf5.read_expert`."""

_ROUNDING = 1e-6
"""How far a recorded action may be beyond its range."""


@dataclass(frozen=True)
class Transitions:
    """N transitions (s, a, r, s', done). Terminal (the task ended) and timeout (the horizon did) are kept apart.

    states, next_states (N, S) float32, without task ids; actions (N, A) float32; rewards (N,) float32;
    terminals, timeouts (N,) bool; `task` is None for a mixture.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_states: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    task: Task | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    @classmethod
    def arrays(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls) if field.name != "task")

    def published(self) -> dict[str, np.ndarray]:
        """The arrays under the names that they have in files."""
        return {PUBLISHED_KEYS.get(name, name): getattr(self, name) for name in self.arrays()}

    @classmethod
    def from_published(cls, arrays: Mapping[str, np.ndarray], task: Task | None) -> Transitions:
        """The inverse of `published`."""
        return cls(**{name: arrays[PUBLISHED_KEYS.get(name, name)] for name in cls.arrays()}, task=task)

    @property
    def only_task(self) -> Task:
        """Raises `DataError` where there are several, or none is named."""
        if self.task is None:
            raise DataError(f"{len(self):,} transitions of no one task: expected those of a single task")
        return self.task

    def take(self, indices: np.ndarray | slice) -> Transitions:
        return Transitions(**{name: getattr(self, name)[indices] for name in self.arrays()}, task=self.task)

    def to_matrix(self, layout: FactoredLayout, *, timeouts_as_terminals: bool) -> np.ndarray:
        """(N, D) float32: [s, a, r, s', done]."""
        done = self.terminals | self.timeouts if timeouts_as_terminals else self.terminals
        matrix = np.empty((len(self), layout.transition_dim), dtype=np.float32)
        matrix[:, layout.state] = self.states
        matrix[:, layout.action] = self.actions
        matrix[:, layout.reward] = self.rewards
        matrix[:, layout.next_state] = self.next_states
        matrix[:, layout.terminal] = done
        return matrix

    @classmethod
    def from_matrix(cls, matrix: np.ndarray, task: Task | None, layout: FactoredLayout) -> Transitions:
        """The inverse of `to_matrix`; which ends were time-outs is not in the matrix."""
        return cls(
            states=matrix[:, layout.state],
            actions=matrix[:, layout.action],
            rewards=matrix[:, layout.reward],
            next_states=matrix[:, layout.next_state],
            terminals=matrix[:, layout.terminal] > TERMINAL_THRESHOLD,
            timeouts=np.zeros(len(matrix), dtype=bool),
            task=task,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Transitions]) -> Transitions:
        """All parts in order; the task is kept where they share it."""
        tasks = {part.task for part in parts}
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.arrays()}
        return cls(**arrays, task=tasks.pop() if len(tasks) == 1 else None)

    def validate(self, source: str, layout: FactoredLayout) -> None:
        """Raises `DataError` naming `source` and the file's key unless shapes fit `layout` and values are finite."""
        count = self.rewards.size
        shapes = {
            "rewards": (count,),
            "states": (count, layout.state_dim),
            "actions": (count, layout.action_dim),
            "next_states": (count, layout.state_dim),
            "terminals": (count,),
            "timeouts": (count,),
        }
        if count == 0:
            raise DataError(f"{source}: holds no transition")
        for name, shape in shapes.items():
            check_array(getattr(self, name), shape, f"{source}: {PUBLISHED_KEYS.get(name, name)}")


def check_array(array: np.ndarray, shape: tuple[int, ...], label: str) -> None:
    """Raises `DataError` unless the array has the shape and only finite numbers."""
    check_shape(array, shape, label)
    check_finite(array, label)


def check_shape(array: np.ndarray, shape: tuple[int, ...], label: str) -> None:
    """Raises `DataError` unless the array (or what has its `shape`) has this shape."""
    if array.shape != shape:
        raise DataError(f"{label} has shape {array.shape}, expected {shape}")


def check_finite(array: np.ndarray, label: str, *, first_row: int = 0) -> None:
    """Raises `DataError` naming the first row with a number that is not finite as float32, as which it is used.

    Rows count from `first_row`.
    """
    finite = finite_values(array)
    if not finite.all():
        row = first_row + int(np.argwhere(~finite)[0][0])
        raise DataError(f"{label} has a value that is not finite in row {row}, expected finite numbers")


def finite_values(array: np.ndarray) -> np.ndarray:
    """bool of the array's shape: which numbers are finite as float32."""
    if array.dtype.kind != "f":
        return np.ones(array.shape, bool)
    with np.errstate(over="ignore"):
        return np.isfinite(array.astype(np.float32, copy=False))


def check_actions(actions: np.ndarray, label: str) -> None:
    """Raises `DataError` naming the first recorded action (N, A) beyond [-1, 1], which no environment here takes."""
    wrong = actions_outside(actions)
    if wrong.any():
        row = int(wrong.argmax())
        value = actions[row][np.abs(actions[row]).argmax()]
        raise DataError(f"{label} has {value:g} in row {row}, expected actions in [-1, 1]")


def actions_outside(actions: np.ndarray) -> np.ndarray:
    """(N,) bool: which actions (N, A) are beyond [-1, 1] by more than rounding."""
    outside: np.ndarray = (np.abs(actions) > 1 + _ROUNDING).any(axis=1)
    return outside


def check_flags(flags: np.ndarray, label: str) -> None:
    """Raises `DataError` naming the first of flags (N,) that is neither 0 nor 1."""
    wrong = (flags != 0) & (flags != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"{label} has {flags[row]:g} in row {row}, expected 0 or 1")
