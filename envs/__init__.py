"""CompoSuite and Robomimic on MuJoCo, their experts, vectorised stepping and rendering.

`make("IIWA_Box_None_PickPlace")` builds a task's environment; importing this package also registers every task with
gymnasium as `CompoSuite/<task>-v0` or `Robomimic/<task>-v0`.
"""

from __future__ import annotations

from envs.making import make
from envs.opengl import choose_opengl
from envs.registration import register_all

__all__ = ["make"]

choose_opengl()
register_all()
