"""MuJoCo's C functions for numba-compiled code; `model` and `data` are addresses (`MjModel._address`)."""

from __future__ import annotations

from pathlib import Path

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


_load_mujoco()
_of_model_and_data = types.void(types.uintp, types.uintp)
mj_step1 = types.ExternalFunction("mj_step1", _of_model_and_data)
mj_step2 = types.ExternalFunction("mj_step2", _of_model_and_data)
mj_kinematics = types.ExternalFunction("mj_kinematics", _of_model_and_data)
mj_jacSite = types.ExternalFunction(  # noqa: N816, as MuJoCo has it
    "mj_jacSite", types.void(types.uintp, types.uintp, types.uintp, types.uintp, types.int32)
)
