"""CompoSuite on MuJoCo, its experts, vectorised stepping and rendering.

`make("IIWA_Box_None_PickPlace")` builds a task's environment; importing this package also registers every task with
gymnasium as `CompoSuite/<task>-v0`.
"""

from __future__ import annotations

import ctypes.util
import os
import sys
from typing import TYPE_CHECKING

import gymnasium

from offline_compositional_rl_datasets.task import Task, all_tasks

if TYPE_CHECKING:
    from envs.composuite.env import CompoSuiteEnv


NAMESPACE = "CompoSuite"
"""Of the tasks' names in gymnasium's registry."""


def _choose_opengl() -> None:
    """Headless Linux needs to be told which OpenGL draws off screen, before MuJoCo is imported for the first time."""
    if sys.platform != "linux" or "MUJOCO_GL" in os.environ or "DISPLAY" in os.environ:
        return
    found = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
    os.environ["MUJOCO_GL"] = found[0] if found else "disable"


_choose_opengl()


def make(task: Task | str, **options: object) -> CompoSuiteEnv:
    """The environment of a task; options are those of `CompoSuiteEnv`. Raises `TaskError` for an unknown name."""
    from envs.composuite.env import CompoSuiteEnv

    return CompoSuiteEnv(task, **options)


for _task in all_tasks():
    if f"{NAMESPACE}/{_task}-v0" not in gymnasium.registry:
        gymnasium.register(f"{NAMESPACE}/{_task}-v0", entry_point="envs:make", kwargs={"task": _task.name})
