"""A CompoSuite task as a gymnasium environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np

from envs.composuite.grasp import GraspTest
from envs.composuite.objectives import OBJECTIVES, Situation
from envs.composuite.observation import Observer, Poses
from envs.composuite.placement import sample_object_position
from envs.composuite.scene import drawn_model
from envs.composuite.simulation import ACTION_DIM, CONTROL_FREQUENCY, Simulation
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError


class CompoSuiteEnv(gymnasium.Env):
    """One of the 256 tasks, at 20 control steps per second.

    Observation (77,) float32, or (93,) with `task_ids`; action (8,) in [-1, 1]: seven joint commands, then the gripper
    (positive closes, negative opens, zero holds). Reward in [0, 1]. `terminated` only by Push's rule against lifting;
    the horizon is reported as `truncated` (with `ignore_done` neither ends the episode but Push's rule). Success does
    not end an episode; `info["success"]` tells it for each step.

    A seed given to `reset` gives the placement that numpy's legacy global generator gives in the original benchmark.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQUENCY}

    def __init__(
        self,
        task: Task | str,
        *,
        horizon: int = 500,
        task_ids: bool = False,
        reward_shaping: bool = True,
        reward_scale: float = 1.0,
        ignore_done: bool = False,
        controller: str = "joint",
        render_mode: str | None = None,
        camera: str = "frontview",
        width: int = 256,
        height: int = 256,
    ) -> None:
        if controller != "joint":
            raise ConfigError(
                f"controller {controller!r}: expected 'joint'; the benchmark's 'osc' and 'osc_pose' are not "
                "implemented (all published data and policies use 'joint')"
            )
        if horizon < 1:
            raise ConfigError(f"horizon {horizon}: expected at least 1")
        self.task = task if isinstance(task, Task) else Task.parse(task)
        self.horizon, self.task_ids, self.ignore_done = horizon, task_ids, ignore_done
        self.reward_shaping, self.reward_scale = reward_shaping, reward_scale
        self.render_mode = render_mode
        self._render_settings = (camera, width, height)
        self._renderer = None
        self.simulation = Simulation(self.task)
        self._poses = Poses(self.simulation)
        self._observer = Observer(self.simulation, self._poses)
        self._grasped = GraspTest(self.simulation)
        self._objective = OBJECTIVES[self.task.objective]
        self._condition = self.task.one_hot
        self._random = np.random.RandomState()
        self.steps = 0
        self._ended = True
        size = COMPOSUITE.observation_dim if task_ids else COMPOSUITE.state_dim
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._random = np.random.RandomState(seed)
        self.simulation.reset(sample_object_position(self.task, self._random))
        self.steps, self._ended = 0, False
        return self._observation(), {"success": False, "grasped": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise gymnasium.error.ResetNeeded(f"{self.task}: the episode has ended, call reset() before step()")
        if np.shape(action) != (ACTION_DIM,):
            raise ValueError(f"{self.task}: action of shape {np.shape(action)}, expected ({ACTION_DIM},)")
        action = np.asarray(action, dtype=np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self.task}: action {action} is not finite")
        self.simulation.step(action)
        self.steps += 1
        situation = self.situation(float(action[-1]))
        reward, success = self._objective.reward(situation, shaped=self.reward_shaping)
        terminated = bool(self._objective.ends_episode(situation))
        truncated = not self.ignore_done and self.steps >= self.horizon
        self._ended = terminated or truncated
        info = {"success": bool(success), "grasped": situation.grasped}
        return self._observation(), float(reward) * self.reward_scale, terminated, truncated, info

    def situation(self, gripper_command: float = 0.0) -> Situation:
        """What the objective judges, at the present state."""
        poses = self._poses
        return Situation(
            obj=poses.object_position,
            tool=poses.tool_position,
            goal=poses.goal_position,
            hand_matrix=poses.hand_matrix,
            grasped=self._grasped(),
            gripper_command=gripper_command,
        )

    def full_observation(self) -> np.ndarray:
        """(77,) float64, without the rounding of the returned observation."""
        return self._observer.observe()

    def _observation(self) -> np.ndarray:
        state = self._observer.observe()
        if self.task_ids:
            state = COMPOSUITE.join_ids(state, self._condition)
        return state.astype(np.float32)

    def render(self) -> np.ndarray | None:
        """(height, width, 3) uint8 of the present state."""
        from envs.render import Renderer

        if self._renderer is None:
            self._renderer = Renderer(drawn_model(self.task), *self._render_settings)
        return self._renderer.render(self.simulation.data)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
