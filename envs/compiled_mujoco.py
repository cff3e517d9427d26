"""MuJoCo's C functions for numba-compiled code; `model` and `data` are addresses (`MjModel._address`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import llvmlite.binding
import mujoco
from numba import types


def _load_mujoco() -> None:
    """Let compiled code find MuJoCo's C functions by name, in the very library that the bindings use."""
    folder = Path(mujoco.__file__).parent
    libraries = sorted(folder.glob("libmujoco*.so*")) or sorted(folder.glob("libmujoco*.dylib"))
    libraries = libraries or sorted(folder.glob("mujoco.dll"))
    if not libraries:
        raise ImportError(f"{folder}: no library of MuJoCo found there")
    llvmlite.binding.load_library_permanently(str(libraries[0]))


def _function(name: str, *arguments: types.Type) -> Callable[..., None]:
    """One that compiled code alone can call."""
    return cast("Callable[..., None]", types.ExternalFunction(name, types.void(*arguments)))


_load_mujoco()
mj_step1 = _function("mj_step1", types.uintp, types.uintp)
mj_step2 = _function("mj_step2", types.uintp, types.uintp)
mj_kinematics = _function("mj_kinematics", types.uintp, types.uintp)
mj_jacSite = _function(  # noqa: N816, as MuJoCo has it
    "mj_jacSite", types.uintp, types.uintp, types.uintp, types.uintp, types.int32
)
