"""Lift, Can and Square on robosuite's models, as gymnasium environments with low-dim observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from envs.robomimic_controller import OperationalSpaceController
from envs.robomimic_observation import Observer, solved_test
from envs.robomimic_scene import Scene
from envs.robomimic_task import ACTION_DIM, POLICY_KEYS, RobomimicTask

if TYPE_CHECKING:
    from envs.render import Renderer

CONTROL_FREQUENCY = 20
_ALL_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION


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
        self.scene = Scene.of(self.task)
        self.model = self.scene.slim.__copy__()
        self.data = mujoco.MjData(self.model)
        original = self.scene.robosuite
        substeps = int(original.control_timestep / original.model_timestep)
        self.controller = OperationalSpaceController(original.robots[0], self.model, self.data, substeps)
        self.observer = Observer(self.scene, self.model, self.data)
        self.solved = solved_test(self.scene, self.model, self.data)
        self.render_mode, self._picture = render_mode, (camera, width, height)
        self._drawn: tuple[mujoco.MjData, Renderer] | None = None
        self._random = np.random.default_rng()
        self._start, self.steps, self._ended = 0, 0, True
        size = self.task.observation_dim(self.keys)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (chunk * ACTION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._begin(int(self._random.integers(2**31)) if seed is None else seed)
        return self.observation(), {"success": False, "executed": 0}

    def _begin(self, start: int) -> None:
        self.close()  # pictures are made of the former episode's cube
        self._start = start
        self.scene.start(start, self.model, self.data)
        self.controller.reset()
        self.steps, self._ended = 0, False

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

    def observation(self) -> np.ndarray:
        """(D,) float32."""
        return np.concatenate([self.observer[key]() for key in self.keys]).astype(np.float32)

    def render(self) -> np.ndarray:
        """(height, width, 3) uint8 of the present state. Raises `RenderError` where there is no OpenGL."""
        from envs.render import Renderer

        if self._drawn is None:
            model = self.scene.to_draw(self.model)
            self._drawn = mujoco.MjData(model), Renderer(model, *self._picture)
        data, renderer = self._drawn
        data.qpos[:] = self.data.qpos
        mujoco.mj_forward(data.model, data)
        return renderer.render(data)

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn[1].close()
            self._drawn = None

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

    def snapshot(self) -> dict[str, Any]:
        """All that this episode and those after it depend on, as plain values and arrays, for `resume`."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _ALL_PHYSICS))
        mujoco.mj_getState(self.model, self.data, physics, _ALL_PHYSICS)
        return {
            "start": self._start,
            "physics": physics,
            "controller": self.controller.snapshot(),
            "steps": self.steps,
            "ended": self._ended,
            "random": self._random.bit_generator.state,
        }

    def resume(self, snapshot: dict[str, Any]) -> None:
        """Go on from a `snapshot` of another environment of this task as that one would, to the last bit."""
        self._begin(snapshot["start"])
        mujoco.mj_setState(self.model, self.data, np.asarray(snapshot["physics"]), _ALL_PHYSICS)
        mujoco.mj_kinematics(self.model, self.data)
        self.controller.resume(snapshot["controller"])
        self.steps, self._ended = snapshot["steps"], snapshot["ended"]
        self._random.bit_generator.state = snapshot["random"]

    def model_xml(self) -> str:
        """The MJCF of the present episode's model; paths of meshes and textures start at the `robosuite` package."""
        return self.scene.xml(self.model)
