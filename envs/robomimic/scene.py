"""robosuite's part of a Robomimic task: its models, and the starts that it draws."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from envs.robomimic.arguments import ENV_NAMES, ROBOTS
from envs.robomimic.task import RobomimicTask

_CUBE, _CUBE_GEOM = "cube_main", "cube_g0"
_CUBE_HALF_SIZE = (0.020, 0.022)  # m, drawn for each side at robosuite's hard reset


def import_robosuite() -> Any:
    """robosuite without its demand for OpenGL and its advice to make a settings file."""
    if "robosuite" not in sys.modules:
        macros = types.ModuleType("robosuite.macros_private")
        vars(macros)["MUJOCO_GPU_RENDERING"] = False
        sys.modules.setdefault("robosuite.macros_private", macros)
        # Pictures are made by envs.render; robosuite itself needs no OpenGL, and would load it at import.
        chosen = os.environ.get("MUJOCO_GL")
        os.environ["MUJOCO_GL"] = "disable"
        try:
            import robosuite.environments.base
        finally:
            if chosen is None:
                del os.environ["MUJOCO_GL"]
            else:
                os.environ["MUJOCO_GL"] = chosen
    import robosuite

    return robosuite


@contextlib.contextmanager
def global_random_state(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, the only one that robosuite draws from, and gives the former state back."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


class Scene:
    """One task's environment of robosuite 1.4, which draws the starts, and the model that is stepped.

    Models and starts of robosuite 1.5 are the same to the last bit, so that this serves its tasks too.

    `slim` is robosuite's model without the geoms that are drawn but touch nothing: the same motion to the last bit,
    faster. `full` has them, for pictures. A scene holds no episode: one serves all environments of a process, each of
    which steps a copy of `slim`.
    """

    def __init__(self, task: RobomimicTask) -> None:
        self.task, self.arguments = task, task.arguments
        robosuite = import_robosuite()
        law = self.arguments.law
        gains = {key: list(getattr(law, key)) for key in ("kp", "damping_ratio", "output_min", "output_max")}
        with global_random_state(0):
            self.robosuite = robosuite.make(
                ENV_NAMES[task.name],
                robots=ROBOTS[task.name],
                **({"env_configuration": "single-arm-opposed"} if task.name == "transport" else {}),
                controller_configs={"type": "OSC_POSE", "interpolation": None, **gains},
                control_freq=self.arguments.control_freq,
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                ignore_done=True,
                **copy.deepcopy(dict(self.arguments.model)),  # robosuite writes into them
            )
            self.robosuite.reset()
        self.redraws = task.name == "transport"
        self.drawn: int | None = None
        self.robosuite.hard_reset = False
        self._compile()
        if task.name == "lift":
            cube = self.slim.body(_CUBE)
            self._cube_density = float(cube.mass[0] / (8 * np.prod(self.slim.geom(_CUBE_GEOM).size)))  # kg / m^3

    def _compile(self) -> None:
        xml = self.robosuite.model.get_xml()
        self._xml = xml.replace(str(Path(import_robosuite().__file__).parent.parent) + os.sep, "")
        root = ET.fromstring(xml)
        next(root.iter("compiler")).set("discardvisual", "true")
        self.slim = mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))

    def redraw(self, seed: int) -> None:
        """Make the models that robosuite's hard reset draws with `seed` (of Transport, the head of its hammer)."""
        if self.drawn == seed:
            return
        self.robosuite.hard_reset = True
        try:
            with global_random_state(seed):
                self.robosuite.reset()
        finally:
            self.robosuite.hard_reset = False
        self._compile()
        self.drawn = seed

    @classmethod
    @functools.cache
    def of(cls, task: RobomimicTask) -> Scene:
        """The process' scene of the task."""
        return cls(task)

    @property
    def full(self) -> mujoco.MjModel:
        return self.robosuite.sim.model._model

    @property
    def first_mass(self) -> np.ndarray:
        """(arms, 7, 7) mass matrices that robosuite's controllers keep from the last start for their first substep.

        They are taken before the fingers are opened.
        """
        return np.stack([robot.controller.mass_matrix for robot in self.robosuite.robots])

    def start(self, seed: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """The start that robosuite's hard reset draws with `seed`, in a copy of `slim` and its data.

        Where models are drawn too, `slim` is that of `redraw` with this seed.
        """
        if self.redraws:
            self.redraw(seed)  # whose start robosuite is still in: it is never stepped
        else:
            self._draw(seed, model, data)
        source = self.robosuite.sim.data._data
        _copy_places(self.full, model)
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(self.full, source, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)

    def _draw(self, seed: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """The same draws by robosuite's soft reset, which keeps its model."""
        source = self.robosuite.sim.data._data
        with global_random_state(seed):
            if self.task.name == "lift":
                half = np.array([np.random.uniform(*_CUBE_HALF_SIZE) for _ in range(3)])  # noqa: NPY002
                resize_cube(self.full, source, half, self._cube_density)
                resize_cube(model, data, half, self._cube_density)
                self.robosuite.cube.size = list(half)
            self.robosuite.reset()

    def placement(self, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """What `start` writes into a `model`: poses `bodies` (nbody, 7), and half sides `cube` (3,) in m of Lift's."""
        placed = {"bodies": np.concatenate([model.body_pos, model.body_quat], axis=1)}
        return placed | ({"cube": model.geom(_CUBE_GEOM).size.copy()} if self.task.name == "lift" else {})

    def place(self, placement: Mapping[str, np.ndarray], model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Write a `placement` into a copy of `slim`, of which the state in `data` is lost."""
        if self.task.name == "lift":
            resize_cube(model, data, np.asarray(placement["cube"]), self._cube_density)
        bodies = np.asarray(placement["bodies"])
        model.body_pos[:], model.body_quat[:] = bodies[:, :3], bodies[:, 3:]

    def __reduce__(self) -> tuple[Any, ...]:
        return Scene.of, (self.task,)

    def to_draw(self, model: mujoco.MjModel) -> mujoco.MjModel:
        """A copy of `full` that looks as an episode's `model`, made from `slim`, would."""
        full = self.full.__copy__()
        _copy_places(model, full)
        if self.task.name == "lift":
            body = full.body(_CUBE)
            full.geom_size[body.geomadr[0] : body.geomadr[0] + body.geomnum[0]] = model.geom(_CUBE_GEOM).size
        return full

    def xml(self, model: mujoco.MjModel) -> str:
        """The MJCF of an episode's `model`; paths of meshes and textures start at the `robosuite` package."""
        root = ET.fromstring(self._xml)
        if self.task.name == "lift":
            size = " ".join(repr(float(half)) for half in model.geom(_CUBE_GEOM).size)
            for geom in root.iter("geom"):
                if geom.get("name", "").startswith("cube_"):
                    geom.set("size", size)
        return ET.tostring(root, encoding="unicode")


def _copy_places(source: mujoco.MjModel, target: mujoco.MjModel) -> None:
    """robosuite puts some bodies in their places by writing to its model at each reset."""
    target.body_pos[:], target.body_quat[:] = source.body_pos, source.body_quat


def resize_cube(model: mujoco.MjModel, data: mujoco.MjData, half: np.ndarray, density: float) -> None:
    """Give the compiled model of Lift the cube that a fresh one with half sides `half` (3,) m has; kg / m^3."""
    body = model.body(_CUBE).id
    first, count = model.body_geomadr[body], model.body_geomnum[body]
    geoms = slice(first, first + count)
    model.geom_size[geoms] = half
    model.geom_aabb[geoms, 3:] = half
    model.geom_rbound[geoms] = np.linalg.norm(half)
    boxes = slice(model.body_bvhadr[body], model.body_bvhadr[body] + model.body_bvhnum[body])
    model.bvh_aabb[boxes, 3:] = half
    mass = density * 8 * np.prod(half)
    model.body_mass[body] = mass
    model.body_inertia[body] = mass / 3 * (np.sum(half**2) - half**2)
    mujoco.mj_setConst(model, data)
