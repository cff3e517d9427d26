"""Robomimic's tasks on robosuite's models, as gymnasium environments with low-dim observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np

from envs.robomimic.controller import OperationalSpaceController
from envs.robomimic.observation import Observables, solved_test
from envs.robomimic.scene import Scene
from envs.robomimic.task import RobomimicTask
from envs.task_env import TaskEnv, ViewOptions, expect_count
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_ALL_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION


class RobomimicEnv(TaskEnv):
    """One task, mostly at 20 control steps per second; an action is a chunk of `chunk` of them, executed open loop.

    Observation (D,) float32, the observations of `keys` one after the other; action (chunk * 7,) in [-1, 1] (of two
    arms chunk * 14). The
    reward is the number of control steps of the chunk after which the task was solved, 0 to `chunk`.
    `info["success"]`: solved after any of them; `info["executed"]`: how many were executed. The horizon (control
    steps) is reported as `truncated`, and within a chunk nothing is executed beyond it. With `until_success` the first
    success ends the episode (`terminated`).

    An episode depends on its seed alone and starts as robosuite's own hard reset with that seed of numpy's generator
    does (Lift draws the cube's size). Observations are those of the present state, as in the data files: robosuite's
    live ones lag by one physics step.
    """

    task: RobomimicTask

    def __init__(
        self,
        task: RobomimicTask | str,
        *,
        horizon: int | None = 400,
        chunk: int = 1,
        keys: Sequence[str] | None = None,
        until_success: bool = False,
        **view: Unpack[ViewOptions],
    ) -> None:
        task = RobomimicTask.standard(task) if isinstance(task, str) else task
        expect_count("chunk", chunk)
        keys = task.policy_keys if keys is None else keys
        _expect_keys(keys, task)
        self.chunk, self.keys, self.until_success = chunk, tuple(keys), until_success
        options: ViewOptions = {"camera": "agentview", "width": 320, "height": 240, **view}
        super().__init__(task, horizon=horizon, **options)
        size = self.task.observation_dim(self.keys)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (chunk * task.action_dim,), np.float32)

    def _build(self) -> None:
        self.scene = Scene.of(self.task)
        self._bind()

    def _bind(self) -> None:
        """Take a copy of the scene's present model, and what looks at it."""
        self._drawn = self.scene.drawn
        self.model = self.scene.slim.__copy__()
        self.data = mujoco.MjData(self.model)
        original = self.scene.robosuite
        substeps = int(original.control_timestep / original.model_timestep)
        arguments = self.scene.arguments
        self.metadata = {**self.metadata, "render_fps": arguments.control_freq}
        self.controller = OperationalSpaceController(original.robots, arguments.law, self.model, self.data, substeps)
        self.observer = Observables(self.scene, self.model, self.data)
        self.solved = solved_test(self.scene, self.model, self.data)

    def _begin(self, seed: int) -> None:
        self.close()  # pictures are made of the former episode's cube
        if self.scene.redraws:
            self.scene.redraw(seed)
            self._bind()
        self.scene.start(seed, self.model, self.data)
        self.controller.reset(self.scene.first_mass)
        self.observer.begin()

    def _first_info(self) -> dict[str, Any]:
        return {**super()._first_info(), "executed": 0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = self._taken(action)
        solved, before = 0, self.steps
        for command in action.reshape(self.chunk, self.task.action_dim):
            self.observer.remember()
            self.controller.step(command)
            self.steps += 1
            solved += self.solved()
            if self._at_the_last_step() or (solved and self.until_success):
                break
        terminated = self.until_success and solved > 0
        truncated = not terminated and self._at_the_last_step()
        self._ended = terminated or truncated
        info = {"success": solved > 0, "is_success": solved > 0, "executed": self.steps - before}
        return self.observation(), float(solved), terminated, truncated, info

    def _at_the_last_step(self) -> bool:
        return self.horizon is not None and self.steps >= self.horizon

    def observation(self) -> np.ndarray:
        """(D,) float32."""
        return np.concatenate([self.observer[key]() for key in self.keys]).astype(np.float32)

    def render(self) -> np.ndarray:
        """(height, width, 3) uint8 of the present state. Raises `RenderError` where there is no OpenGL."""
        from envs.render import Renderer

        if self._renderer is None:
            self._with_own_models()
            self._renderer = Renderer(self.scene.to_draw(self.model), *self._picture)
        return self._renderer.render(self.data)

    def state(self) -> np.ndarray:
        """(1 + nq + nv,) float64: time, positions, velocities, as the data files have it."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    def reset_to(self, state: np.ndarray) -> np.ndarray:
        """Start an episode in a state of `state()` of the present model, with the controller at rest; its observation.

        The controller's goals and the gripper's command are not part of a state, so that what follows is near the
        recording, not equal to it (`snapshot` has all). Raises `ValueError` for a state of another model.
        """
        nq, nv = self.model.nq, self.model.nv
        if np.shape(state) != (1 + nq + nv,):
            raise ValueError(f"{self.task}: state of shape {np.shape(state)}, expected ({1 + nq + nv},)")
        mujoco.mj_resetData(self.model, self.data)
        self.data.time = state[0]
        self.data.qpos[:], self.data.qvel[:] = state[1 : 1 + nq], state[1 + nq :]
        mujoco.mj_forward(self.model, self.data)
        self.controller.reset()
        self.observer.remember()
        self.steps, self._ended = 0, False
        return self.observation()

    def _physics(self) -> dict[str, Any]:
        state = np.empty(mujoco.mj_stateSize(self.model, _ALL_PHYSICS))
        mujoco.mj_getState(self.model, self.data, state, _ALL_PHYSICS)
        return {
            "env_args": self.task.env_args,
            "state": state,
            "placement": self.scene.placement(self.model) | ({"seed": self._drawn} if self.scene.redraws else {}),
            "controller": self.controller.snapshot(),
            "object_before": self.observer.memory.copy(),
        }

    def _restore_physics(self, physics: Mapping[str, Any]) -> None:
        if physics["env_args"] != self.task.env_args:
            raise ValueError("made with other env_args")
        self.close()
        if self.scene.redraws and physics["placement"]["seed"] is not None:
            self.scene.redraw(physics["placement"]["seed"])
            self._bind()
        mujoco.mj_resetData(self.model, self.data)
        self.scene.place(physics["placement"], self.model, self.data)
        mujoco.mj_setState(self.model, self.data, np.asarray(physics["state"]), _ALL_PHYSICS)
        mujoco.mj_kinematics(self.model, self.data)
        self.controller.restore(physics["controller"])
        self.observer.memory[:] = np.asarray(physics["object_before"])

    def model_xml(self) -> str:
        """The MJCF of the present episode's model; paths of meshes and textures start at the `robosuite` package."""
        self._with_own_models()
        return self.scene.xml(self.model)

    def _with_own_models(self) -> None:
        """Another environment of this process may have drawn the scene's models anew."""
        if self.scene.redraws and self._drawn is not None:
            self.scene.redraw(self._drawn)


def _expect_keys(keys: Sequence[str], task: RobomimicTask) -> None:
    known = task.observation_dims
    if isinstance(keys, str) or not keys or len(set(keys)) < len(keys) or not set(keys) <= set(known):
        raise ConfigError(f"keys {keys!r}: expected one or more of {', '.join(known)}, none of them twice")
