"""What a generator is trained on: the transitions of several tasks in one matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import canonicalise_transitions
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.errors import DataError


class Allocate(Protocol):
    """Gives an array of any content, as `numpy.empty` does."""

    def __call__(self, shape: tuple[int, ...], dtype: DTypeLike, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Pool:
    """Transitions of several tasks: matrix (N, 164) float32, task of each row (N,) int64, conditions (T, 16)."""

    matrix: np.ndarray
    task_index: np.ndarray
    conditions: np.ndarray
    layout: FactoredLayout

    @classmethod
    def of(
        cls,
        parts: Iterable[Transitions],
        layout: FactoredLayout,
        *,
        rows: int | None = None,
        allocate: Allocate = np.empty,
        canonical_quaternions: bool = True,
        timeouts_as_terminals: bool,
    ) -> Pool:
        """One matrix, allocated once and filled part by part. Raises `DataError` for an empty pool.

        With `timeouts_as_terminals` the end of time counts as an end of the task.
        `rows`: how many the parts have, where they are an iterator: then each may be let go once it has been copied
        (the system hands out the matrix' memory as it is filled), and the pool is in memory once, not twice.
        `allocate` is asked for the matrix and for the tasks of its rows.
        """
        if rows is None:
            parts = list(parts)
            rows = sum(len(part) for part in parts)
        if not rows:
            raise DataError("the training pool is empty: expected at least one task with data")
        matrix = allocate((rows, layout.transition_dim), np.float32)
        task_index = allocate((rows,), np.int64)
        start, conditions = 0, []
        for i, part in enumerate(parts):
            stop = start + len(part)
            block = matrix[start:stop]
            block[:] = part.to_matrix(layout, timeouts_as_terminals=timeouts_as_terminals)
            if canonical_quaternions:
                canonicalise_transitions(block, layout)
            task_index[start:stop] = i
            conditions.append(part.only_task.one_hot)
            start = stop
        return cls(matrix, task_index, np.stack(conditions), layout)
