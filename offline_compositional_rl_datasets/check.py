"""Is a data folder fit for use? One verdict per task's file, and what a split still lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from offline_compositional_rl_datasets.hdf5 import FLAGS, find_task_file, open_task_file
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import actions_outside, finite_values
from runtime.atomic import artifact_info
from runtime.errors import DataError, one_line
from runtime.hdf5 import read

_ROWS = 65_536  # read at a time, so that a file of any size needs little memory
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FileReport:
    """What was found in a task's file; `faults` is empty where it is fit for use.

    `success` is the share of episodes that succeed at their last step, `mean_return` the mean sum of rewards per
    episode. An episode of data recorded here is what lies between two shoves, so that both say little: `run_success`
    and `run_return` are those of whole runs, from the file's side file (not a number where there is none).
    """

    task: Task
    path: Path | None
    rows: int = 0
    episodes: int = 0
    success: float = float("nan")
    mean_return: float = float("nan")
    run_success: float = float("nan")
    run_return: float = float("nan")
    faults: tuple[str, ...] = ()


def check_task(data_path: Path, dataset_type: str, task: Task) -> FileReport:
    """Check shapes, types, finite numbers, task ids, ranges and episode ends of a task's file. Never raises for it."""
    try:
        path = find_task_file(data_path, dataset_type, task)
    except DataError:
        return FileReport(task, None, faults=("missing",))
    try:
        with open_task_file(path, task.layout) as arrays:
            report = _check_rows(arrays, path, task)
    except DataError as error:
        return FileReport(task, path, faults=(one_line(error).removeprefix(f"{path}: "),))
    info = artifact_info(path) or {}
    if "success_rate" not in info or "mean_return" not in info:
        return report
    return replace(report, run_success=info["success_rate"], run_return=info["mean_return"])


def _check_rows(arrays: Mapping[str, h5py.Dataset], path: Path, task: Task) -> FileReport:
    rewards = read(arrays["rewards"]).astype(np.float64)
    rows = len(rewards)
    marks = {key: read(arrays[key]) for key in FLAGS}
    faults = [
        f"row {int(wrong.argmax())}: {key} is neither 0 nor 1"
        for key, wrong in ((key, (mark != 0) & (mark != 1)) for key, mark in marks.items())
        if wrong.any()
    ]
    successes, terminals, timeouts = (mark.astype(bool) for mark in marks.values())
    ends = terminals | timeouts
    for start in range(0, rows, _ROWS):
        part = slice(start, start + _ROWS)
        observations, actions = (read(arrays[key], part) for key in ("observations", "actions"))
        faults += _faults_of_rows(observations, actions, rewards[part], task, start)
        if faults:
            break
    if not ends[-1]:
        faults.append("the last episode has no end (terminal or timeout): it is cut off")
    last = np.flatnonzero(ends)
    whole = rewards[: last[-1] + 1] if len(last) else rewards[:0]
    starts = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    return FileReport(
        task=task,
        path=path,
        rows=rows,
        episodes=len(last),
        success=float(successes[last].mean()) if len(last) else float("nan"),
        mean_return=float(np.add.reduceat(whole, starts).mean()) if len(last) else float("nan"),
        faults=tuple(faults),
    )


def _faults_of_rows(
    observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray, task: Task, start: int
) -> list[str]:
    faults = []

    def report(bad: np.ndarray | np.bool, what: str) -> None:
        if bad.any():
            faults.append(f"row {start + int(bad.argmax())}: {what}")

    report(~finite_values(observations).all(axis=1), "observation is not finite")
    report(~finite_values(actions).all(axis=1), "action is not finite")
    report(~finite_values(rewards), "reward is not finite")
    if faults:
        return faults
    states, ids = task.layout.split_ids(observations)
    report((ids != task.one_hot).any(axis=1), f"task ids are not those of {task}")
    report(actions_outside(actions), "action outside [-1, 1]")
    report((rewards < -1e-6) | (rewards > 1 + 1e-6), "reward outside [0, 1]")
    for part in task.layout.relative_quaternions:
        with np.errstate(over="ignore"):  # too long to square is too long
            norms = np.linalg.norm(states[:, part], axis=1)
        report(
            (np.abs(norms - 1) > _UNIT_TOLERANCE) & (norms > _UNIT_TOLERANCE),
            f"quaternion at {part.start}:{part.stop} of the state is not of length 1",
        )
    return faults


def check_folder(data_path: Path, dataset_type: str, tasks: Sequence[Task]) -> list[FileReport]:
    """A report per task, in order. Raises `DataError` where the folder itself is missing."""
    if not Path(data_path).is_dir():
        raise DataError(f"{data_path}: no such folder")
    return [check_task(data_path, dataset_type, task) for task in tasks]
