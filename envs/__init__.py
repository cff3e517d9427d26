"""CompoSuite and Robomimic on MuJoCo, their experts, vectorised stepping and rendering.

`make("IIWA_Box_None_PickPlace")` builds a task's environment; importing this package also registers every task with
gymnasium as `CompoSuite/<task>-v0` or `Robomimic/<task>-v0`.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from typing import Any

from envs.family import find_family
from envs.registration import register_all
from envs.robomimic.task import RobomimicTask, task_names
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError, TaskError, one_line


def _choose_opengl() -> None:
    """Headless Linux needs to be told which OpenGL draws off screen, before MuJoCo is imported for the first time.

    MuJoCo cannot be imported at all where that library is missing or half there: physics needs none, so what was found
    here is then done without. Raises `ConfigError` for one that the user named.
    """
    named = os.environ.get("MUJOCO_GL")
    if named is None and sys.platform == "linux" and "DISPLAY" not in os.environ:
        found = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
        os.environ["MUJOCO_GL"] = found[0] if found else "disable"
    try:
        importlib.import_module("mujoco")
    except Exception as error:  # its loaders raise whatever they stumble over
        if named is not None:
            raise ConfigError(
                f"MUJOCO_GL={named}: MuJoCo cannot be imported with it ({one_line(error)}); "
                "expected egl, osmesa, glfw or disable, and its library installed"
            ) from error
        os.environ["MUJOCO_GL"] = "disable"


_choose_opengl()


def make(task: Any, **options: Any) -> Any:
    """The environment of a task or of its name; options are those of its class or of its family's `environment`.

    A name is CompoSuite's or Robomimic's. A task that has a `make_env` makes its own: gymnasium's
    (`envs.gymnasium_task`), or anyone's. Raises `TaskError` for an unknown name.
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


register_all()
