"""The tasks of this package: those that robomimic's `env_args` name, of robosuite and of gymnasium."""

from __future__ import annotations

import json
from collections.abc import Mapping

from envs.gymnasium_task import GYM_TYPE, GymnasiumTask, gymnasium_names
from envs.robomimic.task import RobomimicTask, task_names
from runtime.errors import TaskError

Task = RobomimicTask | GymnasiumTask


def standard_task(name: str, series: str = "1.4") -> Task:
    """`lift`, or `Hopper-v5`; `series` is robosuite's. Raises `TaskError` for an unknown name."""
    if name in gymnasium_names():
        return GymnasiumTask.standard(name)
    if name not in task_names():
        raise TaskError(f"task {name!r}: expected one of {', '.join((*task_names(), *gymnasium_names()))}")
    return RobomimicTask.standard(name, series)


def task_of(env_args: str, source: str) -> Task:
    """The task of a data file or checkpoint called `source`. Raises `DataError` for another environment."""
    if _kind(env_args) == GYM_TYPE:
        return GymnasiumTask.from_env_args(env_args, source)
    return RobomimicTask.from_env_args(env_args, source)


def _kind(env_args: str) -> object:
    try:
        arguments = json.loads(env_args)
    except (ValueError, TypeError, RecursionError):
        return None  # told by who reads it
    return arguments.get("type") if isinstance(arguments, Mapping) else None
