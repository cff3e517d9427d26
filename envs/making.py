"""The environment of a task."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import gymnasium

from envs.family import find_family
from envs.robomimic.task import RobomimicTask, task_names
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.task import Task
from runtime.errors import TaskError


class MakesEnv(Protocol):
    """A task that makes its own environment: gymnasium's (`envs.gymnasium_task`), or anyone's."""

    @property
    def name(self) -> str: ...

    def make_env(self, **options: Any) -> gymnasium.Env: ...


AnyTask: TypeAlias = Task | RobomimicTask | MakesEnv | str
"""What `make` makes environments of: a task, or the name of one of CompoSuite's or Robomimic's."""


def make(task: AnyTask, **options: Any) -> Any:
    """The environment of a task or of its name; options are those of its class or of its family's `environment`.

    A name is CompoSuite's or Robomimic's. Raises `TaskError` for an unknown one.
    """
    if hasattr(task, "make_env"):
        return task.make_env(**options)
    if isinstance(task, RobomimicTask) or task in task_names():
        from envs.robomimic.env import RobomimicEnv

        return RobomimicEnv(task, **options)
    if isinstance(task, Task):
        return find_family(task.family).environment(task, **options)
    if not isinstance(task, str) or "_" not in task:
        raise TaskError(
            f"task {task!r}: expected {', '.join(task_names())} or a Robot_Object_Obstacle_Objective "
            "such as IIWA_Box_None_PickPlace"
        )
    return find_family("composuite").environment(CompoSuiteTask.parse(task), **options)
