"""Lift, Can and Square on robosuite's models, as gymnasium environments with low-dim observations."""

from __future__ import annotations

import contextlib
import os
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from envs.robomimic_controller import OperationalSpaceController
from envs.robomimic_task import ACTION_DIM, POLICY_KEYS, RobomimicTask

CONTROL_FREQUENCY = 20
_OBJECT_BODIES = {"lift": "cube_main", "can": "Can_main", "square": "SquareNut_main"}
_CUBE_HALF_SIZE = (0.020, 0.022)  # m, drawn for each side at robosuite's hard reset


def import_robosuite() -> Any:
    """robosuite without its demand for OpenGL and its advice to make a settings file."""
    if "robosuite" not in sys.modules:
        macros = types.ModuleType("robosuite.macros_private")
        macros.MUJOCO_GPU_RENDERING = False
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


class RobomimicEnv(gymnasium.Env):
    """One task at 20 control steps per second; an action is a chunk of `chunk` control steps, executed open loop.

    Observation (D,) float32, the observations of `keys` one after the other; action (chunk * 7,) in [-1, 1]. The
    reward is the number of control steps of the chunk after which the task was solved, 0 to `chunk`.
    `info["success"]`: solved after any of them; `info["executed"]`: how many were executed. The horizon (control
    steps) is reported as `truncated`, and within a chunk nothing is executed beyond it. With `until_success` the first
    success ends the episode (`terminated`).

    An episode depends on its seed alone and starts as robosuite's own hard reset with that seed of numpy's generator
    does (Lift draws the cube's size). Observations are those of the present state, as in the data files: robosuite's
    live ones lag by one physics step.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQUENCY}

    def __init__(
        self,
        task: RobomimicTask | str,
        *,
        horizon: int = 400,
        chunk: int = 1,
        keys: Sequence[str] = POLICY_KEYS,
        until_success: bool = False,
        render_mode: str | None = None,
        camera: str = "agentview",
        width: int = 320,
        height: int = 240,
    ) -> None:
        self.task = RobomimicTask.standard(task) if isinstance(task, str) else task
        self.horizon, self.chunk, self.keys, self.until_success = horizon, chunk, tuple(keys), until_success
        robosuite = import_robosuite()
        with global_random_state(0):
            self.robosuite = robosuite.make(self.task.env_name, **self.task.env_kwargs)
            self.robosuite.reset()
        self.robosuite.hard_reset = False
        packages = str(Path(robosuite.__file__).parent.parent)
        self._xml = self.robosuite.model.get_xml().replace(packages + os.sep, "")
        sim = self.robosuite.sim
        self.model, self.data = sim.model._model, sim.data._data
        substeps = int(self.robosuite.control_timestep / self.robosuite.model_timestep)
        self.controller = OperationalSpaceController(self.robosuite.robots[0], substeps)
        self.observer = Observer(self)
        self.render_mode, self._picture, self._renderer = render_mode, (camera, width, height), None
        self._random = np.random.default_rng()
        self.steps, self._ended = 0, True
        size = self.task.observation_dim(self.keys)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (chunk * ACTION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._random = np.random.default_rng(seed)
        start = int(self._random.integers(2**31)) if seed is None else seed
        with global_random_state(start):
            if self.task.name == "lift":
                self._resize_cube(np.array([np.random.uniform(*_CUBE_HALF_SIZE) for _ in range(3)]))  # noqa: NPY002
            self.robosuite.reset()
        mujoco.mj_forward(self.model, self.data)
        self.controller.reset()
        self.steps, self._ended = 0, False
        return self.observation(), {"success": False, "executed": 0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise gymnasium.error.ResetNeeded(f"{self.task}: the episode has ended, call reset() before step()")
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"{self.task}: action of shape {np.shape(action)}, expected {self.action_space.shape}")
        action = np.asarray(action, dtype=np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self.task}: action {action} is not finite")
        solved, before = 0, self.steps
        for command in action.reshape(self.chunk, ACTION_DIM):
            self.controller.step(command)
            self.steps += 1
            solved += self.solved()
            if self.steps >= self.horizon or (solved and self.until_success):
                break
        terminated = self.until_success and solved > 0
        truncated = not terminated and self.steps >= self.horizon
        self._ended = terminated or truncated
        info = {"success": solved > 0, "executed": self.steps - before}
        return self.observation(), float(solved), terminated, truncated, info

    def solved(self) -> bool:
        """robosuite's own test on the present state."""
        return bool(self.robosuite._check_success())

    def observation(self) -> np.ndarray:
        """(D,) float32."""
        return np.concatenate([self.observer[key]() for key in self.keys]).astype(np.float32)

    def render(self) -> np.ndarray:
        """(height, width, 3) uint8 of the present state. Raises `RenderError` where there is no OpenGL."""
        from envs.render import Renderer

        if self._renderer is None:
            self._renderer = Renderer(self.model, *self._picture)
        return self._renderer.render(self.data)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def state(self) -> np.ndarray:
        """(1 + nq + nv,) float64: time, positions, velocities, as the data files have it."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    def restore(self, state: np.ndarray) -> None:
        """Put a state of `state()` into the present model, with the controller at rest in it.

        The controller's goals and the gripper's command are not part of a state, so that what follows a restored state
        is near the recording, not equal to it. Raises `ValueError` for a state of another model.
        """
        nq, nv = self.model.nq, self.model.nv
        if np.shape(state) != (1 + nq + nv,):
            raise ValueError(f"{self.task}: state of shape {np.shape(state)}, expected ({1 + nq + nv},)")
        mujoco.mj_resetData(self.model, self.data)
        self.data.time = state[0]
        self.data.qpos[:], self.data.qvel[:] = state[1 : 1 + nq], state[1 + nq :]
        mujoco.mj_forward(self.model, self.data)
        self.controller.reset()
        self.steps, self._ended = 0, False

    def model_xml(self) -> str:
        """The MJCF of the present episode's model; paths of meshes and textures start at the `robosuite` package."""
        root = ET.fromstring(self._xml)
        if self.task.name == "lift":
            for geom in root.iter("geom"):
                if geom.get("name", "").startswith("cube_"):
                    geom.set("size", " ".join(repr(float(half)) for half in self.robosuite.cube.size))
        return ET.tostring(root, encoding="unicode")

    def _resize_cube(self, half: np.ndarray) -> None:
        """Give the compiled model the cube that a fresh one with half sides `half` (3,) m has."""
        model, cube = self.model, self.robosuite.cube
        body = model.body(_OBJECT_BODIES["lift"]).id
        first, count = model.body_geomadr[body], model.body_geomnum[body]
        geoms = slice(first, first + count)
        density = model.body_mass[body] / (8 * np.prod(model.geom_size[first]))
        model.geom_size[geoms] = half
        model.geom_aabb[geoms, 3:] = half
        model.geom_rbound[geoms] = np.linalg.norm(half)
        boxes = slice(model.body_bvhadr[body], model.body_bvhadr[body] + model.body_bvhnum[body])
        model.bvh_aabb[boxes, 3:] = half
        mass = density * 8 * np.prod(half)
        model.body_mass[body] = mass
        model.body_inertia[body] = mass / 3 * (np.sum(half**2) - half**2)
        mujoco.mj_setConst(model, self.data)
        cube.size = list(half)


class Observer(dict[str, Callable[[], np.ndarray]]):
    """Observations of an environment's present state by the data files' keys: a call gives (d,) float64."""

    def __init__(self, env: RobomimicEnv) -> None:
        data, robot = env.data, env.robosuite.robots[0]
        site, hand = robot.eef_site_id, env.model.body(robot.robot_model.eef_name).id
        body = env.model.body(_OBJECT_BODIES[env.task.name]).id
        arm, fingers = slice(0, 7), np.array(robot._ref_gripper_joint_pos_indexes)
        finger_speeds = np.array(robot._ref_gripper_joint_vel_indexes)
        position, quaternion = data.site_xpos[site], data.xquat[hand]
        object_position, object_quaternion = data.xpos[body], data.xquat[body]
        jacobian = np.zeros((6, env.model.nv))

        def speed(part: slice) -> np.ndarray:
            mujoco.mj_jacBody(env.model, data, jacobian[:3], jacobian[3:], hand)
            return jacobian[part] @ data.qvel

        def cube() -> np.ndarray:
            return np.concatenate([object_position, _xyzw(object_quaternion), position - object_position])

        def object_and_relative_pose() -> np.ndarray:
            away, difference, relative = np.empty(3), object_position - position, np.empty(4)
            inverse = quaternion * (1, -1, -1, -1)
            mujoco.mju_rotVecQuat(away, difference, inverse)
            mujoco.mju_mulQuat(relative, inverse, object_quaternion)
            if relative[0] < 0:
                relative = -relative
            return np.concatenate([object_position, _xyzw(object_quaternion), away, _xyzw(relative)])

        super().__init__(
            {
                "robot0_eef_pos": lambda: position.copy(),
                "robot0_eef_quat": lambda: _xyzw(quaternion),
                "robot0_eef_vel_lin": lambda: speed(slice(0, 3)),
                "robot0_eef_vel_ang": lambda: speed(slice(3, 6)),
                "robot0_gripper_qpos": lambda: data.qpos[fingers],
                "robot0_gripper_qvel": lambda: data.qvel[finger_speeds],
                "robot0_joint_pos": lambda: data.qpos[arm].copy(),
                "robot0_joint_pos_cos": lambda: np.cos(data.qpos[arm]),
                "robot0_joint_pos_sin": lambda: np.sin(data.qpos[arm]),
                "robot0_joint_vel": lambda: data.qvel[arm].copy(),
                "object": cube if env.task.name == "lift" else object_and_relative_pose,
            }
        )


def _xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Scalar last, as robosuite's observations have it; MuJoCo's is first."""
    return quaternion[[1, 2, 3, 0]]
