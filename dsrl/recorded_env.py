"""The environment that demonstrations were recorded in: what `env_args` say, held against the observations."""

from __future__ import annotations

import numpy as np

from dsrl.demos import DemonstrationSet
from dsrl.tasks import Task, task_of
from envs.gymnasium_task import GymnasiumTask
from envs.robomimic.arguments import SERIES
from envs.robomimic.task import RobomimicTask
from runtime.errors import DataError

_BELOW_ALL_TABLES = 0.7  # m
_CLEAR = 0.02  # m, more than the lag of a control step


def recorded_task(data: DemonstrationSet, source: str) -> Task:
    """The task of a data file called `source`.

    Raises `DataError` for an environment that is not built here, and where `object` has the parts of another version of
    robosuite than `env_args` name: a policy would be shown other numbers than those it learned from.
    """
    task = task_of(data.env_args, source)
    expected = task.observation_dim(data.keys)
    if data.observations.shape[1] != expected:
        raise DataError(
            f"{source}: observations of {', '.join(data.keys)} have {data.observations.shape[1]} numbers, expected "
            f"{expected} for {task}"
        )
    if isinstance(task, GymnasiumTask) or task.name not in ("lift", "can", "square"):
        return task  # there is no other version that the observations could be of
    own = task.arguments.series
    misfits = {series: _misfit(data, task, series) for series in SERIES}
    best = min(misfits, key=lambda series: misfits[series])
    if best != own and misfits[own] > _CLEAR:
        raise DataError(
            f"{source}: obs/object has its parts as robosuite {best} has them, but env_args are of {own}, expected "
            "both of one version; `--no_env_check` of dsrl.train_bc takes the usual environment of 1.4"
        )
    return task


def _misfit(data: DemonstrationSet, task: RobomimicTask, series: str) -> float:
    """Metres by which `object`, read as the series has it, contradicts the hand's position or lies below the table."""
    dims, start, part = task.observation_dims, 0, {}
    for key in data.keys:
        part[key] = data.observations[:, start : start + dims[key]]
        start += dims[key]
    if not {"object", "robot0_eef_pos"} <= set(part):
        return 0.0
    hand, seen = part["robot0_eef_pos"], part["object"]
    if task.name == "lift":
        away = hand - seen[:, :3] if series == "1.4" else seen[:, :3] - hand
        return float(np.median(np.linalg.norm(seen[:, 7:10] - away, axis=1)))
    place, relative = (seen[:, :3], seen[:, 7:10]) if series == "1.4" else (seen[:, 7:10], seen[:, :3])
    distance = np.abs(np.linalg.norm(place - hand, axis=1) - np.linalg.norm(relative, axis=1))
    return float(np.median(distance + np.maximum(0, _BELOW_ALL_TABLES - place[:, 2])))
