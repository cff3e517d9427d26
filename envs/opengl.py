"""Which OpenGL MuJoCo draws with."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys

from runtime.errors import ConfigError, UserError, one_line


class RenderError(UserError):
    """No picture can be made on this machine."""


def choose_opengl() -> None:
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
