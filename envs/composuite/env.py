"""A CompoSuite task as a gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from envs.composuite.grasp import GraspTest
from envs.composuite.objectives import OBJECTIVES, Situation
from envs.composuite.observation import ObservationReader, Poses
from envs.composuite.placement import sample_object_position
from envs.composuite.scene import drawn_model
from envs.composuite.simulation import ACTION_DIM, Simulation
from envs.task_env import TaskEnv, ViewOptions, expect_positive
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask, described
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CompoSuiteEnv(TaskEnv):
    """One of the tasks (256 of the benchmark), at 20 control steps per second.

    Observation (77,) float32, or (93,) with `task_ids`; action (8,) in [-1, 1]: seven joint commands, then the gripper
    (positive closes, negative opens, zero holds). Reward in [0, 1]. `terminated` only by Push's rule against lifting;
    the horizon is reported as `truncated` (with `ignore_done` neither ends the episode but Push's rule). Success does
    not end an episode; `info["success"]` tells it for each step.

    A seed given to `reset` gives the placement that numpy's legacy global generator gives in the original benchmark.
    """

    task: CompoSuiteTask

    def __init__(
        self,
        task: CompoSuiteTask | str,
        *,
        horizon: int | None = 500,
        task_ids: bool = False,
        reward_shaping: bool = True,
        reward_scale: float = 1.0,
        ignore_done: bool = False,
        controller: str = "joint",
        **view: Unpack[ViewOptions],
    ) -> None:
        if controller != "joint":
            raise ConfigError(
                f"controller {controller!r}: expected 'joint'; the benchmark's 'osc' and 'osc_pose' are not "
                "implemented (all published data and policies use 'joint')"
            )
        expect_positive("reward_scale", reward_scale)
        self.task_ids, self.ignore_done = task_ids, ignore_done
        self.reward_shaping, self.reward_scale = reward_shaping, reward_scale
        options: ViewOptions = {"camera": "frontview", "width": 256, "height": 256, **view}
        super().__init__(
            task if isinstance(task, CompoSuiteTask) else CompoSuiteTask.parse(task),
            horizon=horizon,
            **options,
        )
        size = COMPOSUITE.observation_dim if task_ids else COMPOSUITE.state_dim
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)

    def _build(self) -> None:
        self.simulation = Simulation(self.task)
        self._poses = Poses(self.simulation)
        self._observer = ObservationReader(self.simulation, self._poses)
        self._grasped = GraspTest(self.simulation)
        self._objective = described(OBJECTIVES, self.task, "objective", "envs/composuite/objectives.py")
        self._condition = self.task.one_hot

    def _begin(self, seed: int) -> None:
        self.simulation.reset(sample_object_position(self.task, np.random.RandomState(seed)))

    def _first_info(self) -> dict[str, Any]:
        return {**super()._first_info(), "grasped": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        action = self._taken(action)
        self.simulation.step(action)
        self.steps += 1
        situation = self.situation(float(action[-1]))
        reward, success = self._objective.reward(situation, shaped=self.reward_shaping)
        terminated = bool(self._objective.ends_episode(situation))
        truncated = not self.ignore_done and self.horizon is not None and self.steps >= self.horizon
        self._ended = terminated or truncated
        info = {"success": bool(success), "is_success": bool(success), "grasped": situation.grasped}
        return self.observation(), float(reward) * self.reward_scale, terminated, truncated, info

    def reset_to(
        self,
        qpos: np.ndarray,
        qvel: np.ndarray,
        *,
        warmstart: np.ndarray | None = None,
        gripper: np.ndarray | None = None,
        first_mass: np.ndarray | None = None,
    ) -> np.ndarray:
        """Start an episode in a state, see `Simulation.reset_to`; gives its observation."""
        self.simulation.reset_to(qpos, qvel, warmstart=warmstart, gripper=gripper, first_mass=first_mass)
        self.steps, self._ended = 0, False
        return self.observation()

    def _physics(self) -> dict[str, Any]:
        return self.simulation.snapshot()

    def _restore_physics(self, physics: Mapping[str, Any]) -> None:
        self.simulation.restore(physics)

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

    def observation(self) -> np.ndarray:
        """(77,) float32, or (93,) with task ids."""
        state = self._observer.observe()
        if self.task_ids:
            state = COMPOSUITE.join_ids(state, self._condition)
        return state.astype(np.float32)

    def render(self) -> np.ndarray:
        """(height, width, 3) uint8 of the present state. Raises `RenderError` where there is no OpenGL."""
        from envs.render import Renderer

        if self._renderer is None:
            self._renderer = Renderer(drawn_model(self.task), *self._picture)
        return self._renderer.render(self.simulation.data)
