"""Pictures of a simulation, off screen."""

from __future__ import annotations

import atexit
import functools
import warnings
import weakref

import mujoco
import numpy as np

from envs.opengl import RenderError


class _OffScreen(mujoco.Renderer):  # type: ignore[misc]  # mujoco has no types
    """MuJoCo's, but quiet when it goes away half made: its destructor asks for what was never set."""

    _gl_context = _mjr_context = None


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


@functools.cache
def _close_at_exit() -> None:
    """Once, after the first context was made: what is still open is then closed before MuJoCo ends the display.

    Left to their destructors, contexts would be freed after it, each with a traceback.
    """

    def close_all() -> None:
        for renderer in list(_open):
            renderer.close()

    atexit.register(close_all)


class Renderer:
    """Draws a model at given positions through a named camera into (height, width, 3) uint8."""

    def __init__(self, model: mujoco.MjModel, camera: str = "frontview", width: int = 256, height: int = 256) -> None:
        """`camera` is one of the model's, or `film`: a view from the front that both tables fill.

        Raises `RenderError` for another camera, an empty picture and where the machine has no off-screen OpenGL (no
        EGL, no OSMesa).
        """
        cameras = [model.camera(i).name for i in range(model.ncam)]
        if camera != "film" and camera not in cameras:
            raise RenderError(f"camera {camera!r}: expected film or one of {', '.join(cameras)}")
        if width < 1 or height < 1:
            raise RenderError(f"picture of {width} x {height} pixels: expected at least 1 x 1")
        self._model = without_hidden_copies(model)
        self._model.vis.global_.offwidth = max(width, self._model.vis.global_.offwidth)
        self._model.vis.global_.offheight = max(height, self._model.vis.global_.offheight)
        self._camera: str | mujoco.MjvCamera = film_camera() if camera == "film" else camera
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GLFW's, on the way to its failure
                self._renderer = _OffScreen(self._model, height, width)
        except Exception as error:  # the binding raises whatever its OpenGL loader does
            raise RenderError(
                f"cannot render off screen ({type(error).__name__}: {error}); install EGL or OSMesa (Debian: libegl1 "
                "or libosmesa6) and set MUJOCO_GL to egl or osmesa"
            ) from error
        _open.add(self)
        _close_at_exit()
        self._data = mujoco.MjData(self._model)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = (0, 1, 0, 0, 0, 0)
        self._options.sitegroup[:] = 0

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """`data` may be that of another model with the same joints, such as one without geoms that are only drawn."""
        self._data.qpos[:] = data.qpos
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera, self._options)
        picture: np.ndarray = self._renderer.render()
        return picture

    def close(self) -> None:
        self._renderer.close()


def film_camera() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (0.05, 0.0, 1.0)
    camera.distance, camera.azimuth, camera.elevation = 1.45, 205.0, -28.0
    return camera


def without_hidden_copies(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of the model in which plain grey copies that coincide with a textured geom are invisible.

    The benchmark's objects have both in the same place, and the two flicker through each other when drawn.
    """
    model = model.__copy__()
    for i in range(model.ngeom):
        name = model.geom(i).name
        if name.endswith("_visual") and "_g" in name and model.geom_matid[i] < 0:
            model.geom_rgba[i, 3] = 0.0
    return model
