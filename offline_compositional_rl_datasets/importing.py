"""Data sets of others as task files in the published layout: what the readers of all formats share, and the writing.

A reader gives the tasks that it found, each with its trajectories. They are written to a folder of their own, checked
there as `check_data` does, and moved to their places when all are fit for use.

The layout has no observation after an episode's last step. Where a source has one and the episode was cut off, the
episode gets one more row with that observation, action and reward 0, marked as the timeout: `read_expert` then gives
all transitions of the source, and leaves that row out. A terminal step bootstraps from nothing, so that the observation
after it is left out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offline_compositional_rl_datasets.check import FileReport, check_task
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import (
    check_actions,
    check_finite,
    check_flags,
    check_shape,
)
from runtime.errors import DataError, StateError

_SOLVED = 1 - 1e-6  # the reward of a step that solved the task


def succeeded(rewards: np.ndarray, successes: np.ndarray | None) -> np.ndarray:
    """(T,): which steps succeeded. Where a source does not say it, those of reward 1 did."""
    return rewards >= _SOLVED if successes is None else successes


@dataclass(frozen=True)
class Trajectory:
    """T steps of one episode as a reader found them.

    observations (T, S), or (T + 1, S) with the one after the last step, with or without task ids; actions (T, A);
    rewards (T,), successes (T,) or None (see `succeeded`). `source` is what errors name.
    """

    source: str
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray | None
    terminated: bool

    def episode(self, task: Task) -> Episode:
        """The rows of a task file. Raises `DataError` for shapes that do not fit, and for what is not finite."""
        steps = len(self.actions)
        self._check_numbers()
        self._check_shapes(task.layout)
        successes = succeeded(self.rewards, self.successes).astype(np.float32)
        check_flags(successes, f"{self.source}: successes")
        check_actions(self.actions, f"{self.source}: actions")
        actions, rewards = self.actions.astype(np.float32), self.rewards.astype(np.float32)
        states = self._states(task)
        if self.terminated:
            states = states[:steps]
        elif len(states) > steps:
            actions, rewards = _with_row(actions, 0), _with_row(rewards, 0)
            successes = _with_row(successes, successes[-1])
        return Episode(states, actions, rewards, successes, self.terminated)

    def _check_numbers(self) -> None:
        for name in ("observations", "actions", "rewards", "successes"):
            array = getattr(self, name)
            if array is not None:
                if array.dtype.kind not in "fbiu":
                    raise DataError(f"{self.source}: {name} has dtype {array.dtype}, expected numbers")
                check_finite(array, f"{self.source}: {name}")

    def _check_shapes(self, layout: FactoredLayout) -> None:
        steps, shape, widths = len(self.actions), self.observations.shape, (layout.state_dim, layout.observation_dim)
        if not steps:
            raise DataError(f"{self.source}: holds no step")
        check_shape(self.actions, (steps, layout.action_dim), f"{self.source}: actions")
        check_shape(self.rewards, (steps,), f"{self.source}: rewards")
        if self.successes is not None:
            check_shape(self.successes, (steps,), f"{self.source}: successes")
        if len(shape) != 2 or shape[0] not in (steps, steps + 1) or shape[1] not in widths:
            raise DataError(
                f"{self.source}: observations has shape {shape}, expected {steps} rows (or one more) of {widths[0]} "
                f"numbers, or {widths[1]} with task ids"
            )

    def _states(self, task: Task) -> np.ndarray:
        """(T, S) or (T + 1, S) float32 without ids. Raises `DataError` for ids of another task."""
        observations = self.observations.astype(np.float32)
        if observations.shape[1] == task.layout.state_dim:
            return observations
        states, ids = task.layout.split_ids(observations)
        wrong = (ids != task.one_hot).any(axis=1)
        if wrong.any():
            raise DataError(f"{self.source}: row {int(wrong.argmax())} has the ids of another task, expected {task}")
        return states


def _with_row(array: np.ndarray, value: float) -> np.ndarray:
    return np.concatenate([array, np.full((1, *array.shape[1:]), value, array.dtype)])


def expect_new(data_path: Path, dataset_type: str, tasks: Iterable[Task]) -> None:
    """Raises `StateError` where a task's file is there already."""
    for task in tasks:
        place = task_file(data_path, dataset_type, task)
        if place.exists():
            raise StateError(f"{place}: there already; move it away or choose another --data_path or --dataset_type")


def write_tasks(
    found: Sequence[tuple[Task, Iterator[Trajectory]]], data_path: Path, dataset_type: str
) -> list[FileReport]:
    """Write a file per task under `data_path`, all of them or none; gives what the check says of each.

    Raises `StateError` where a file is there already, `DataError` for data that are not fit for use.
    """
    tasks = [task for task, _ in found]
    expect_new(data_path, dataset_type, tasks)
    Path(data_path).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=data_path, prefix=".import-"))
    try:
        reports = []
        for task, trajectories in found:
            every = list(trajectories)
            path = task_file(folder, dataset_type, task)
            write_expert(path, [each.episode(task) for each in every], task)
            report = check_task(folder, dataset_type, task)
            if report.faults:
                raise DataError(f"{every[0].source}: as data of {task}: {'; '.join(report.faults)}")
            reports.append(report)
        expect_new(data_path, dataset_type, tasks)
        for task in tasks:
            place = task_file(data_path, dataset_type, task)
            place.parent.mkdir(parents=True, exist_ok=True)
            task_file(folder, dataset_type, task).replace(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        FileReport(**{**vars(report), "path": task_file(data_path, dataset_type, report.task)}) for report in reports
    ]
