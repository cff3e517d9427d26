"""Scripted experts: a smooth, memoryless vector field for tool and gripper, turned into joint commands.

An expert is composed as its task is: the objective says where the object should go and when to let go, the object
where it is grasped, the obstacle how high or which way round to travel. Everything follows from the present
observation through smooth gates, never through switches, because the data must be clonable: a small network has to be
able to represent the action as a function of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.composuite.robots import NUM_ARM_JOINTS, ROBOT_SPECS
from envs.experts.grasps import GRASPS, Grasp
from envs.experts.kinematics import arm_of, damped_least_squares, orientation_error
from envs.experts.paths import ROUTES, Route
from envs.experts.targets import AIMS, Aim
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.task import Task
from runtime.errors import TaskError

TOOL_DOWN = np.diag([1.0, -1.0, -1.0])

_FACTORS = COMPOSUITE.factor_slices


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@dataclass(frozen=True)
class Scene:
    """What an expert sees of a batch of B states (positions (B, 3) in m)."""

    tool: np.ndarray
    obj: np.ndarray
    goal: np.ndarray
    opening: np.ndarray  # (B,) sum of finger travel (m): about 0.042 at the start, 0.023 when commanded open

    @classmethod
    def of(cls, observations: np.ndarray) -> Scene:
        obs = np.asarray(observations, dtype=np.float64)
        proprio = obs[:, _FACTORS["proprioception"]]
        return cls(
            tool=proprio[:, 21:24],
            obj=obs[:, _FACTORS["object"]][:, 0:3],
            goal=obs[:, _FACTORS["goal"]][:, 0:3],
            opening=proprio[:, 28] - proprio[:, 29],
        )


def has_expert(task: Task) -> bool:
    """Whether a `ScriptedExpert` is written for the task's object and objective."""
    return task.object in GRASPS and task.objective in AIMS


class ScriptedExpert:
    """The expert of one task: observations (B, 77) to actions (B, 8) in [-1, 1]."""

    # Joint gain (1/rad): a lower one makes the action a gentler function of the state, but then a small error of a
    # clone's action is a large error of where it stops.
    gain = 14.0
    damping = 2e-3
    max_translation = 0.10
    turn_gain = 0.6
    posture_gain = 0.1
    saturation = 4.0

    def __init__(self, task: Task) -> None:
        if not has_expert(task):
            raise TaskError(
                f"{task}: there is no scripted expert, expected an object of {', '.join(GRASPS)} "
                f"and an objective of {', '.join(AIMS)}"
            )
        self.task = task
        self.arm = arm_of(task.robot)
        self.posture = np.array(ROBOT_SPECS[task.robot].initial_qpos)
        self.grasp: Grasp = GRASPS[task.object]
        self.route: Route = ROUTES[task.obstacle]
        self.aim: Aim = AIMS[task.objective]

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        scene = Scene.of(observations)
        target, close = self.plan(scene)
        proprio = np.asarray(observations, dtype=np.float64)[:, _FACTORS["proprioception"]]
        q = np.arctan2(proprio[:, NUM_ARM_JOINTS : 2 * NUM_ARM_JOINTS], proprio[:, :NUM_ARM_JOINTS])
        command = self._joint_command(q, target - scene.tool)
        return np.concatenate([command, close[:, None]], axis=1).astype(np.float32)

    def plan(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Where the tool should go now (B, 3), and the gripper command (B,) in [-1, 1]."""
        point = scene.obj + self.grasp.offset
        away = scene.tool - point
        away_xy = np.linalg.norm(away[:, :2], axis=1)
        # How surely the object is between the fingers: near the grasp point, and the fingers stopped by it.
        at_point = sigmoid((self.grasp.reach_xy - away_xy) / 0.005) * sigmoid((self.grasp.reach_z - away[:, 2]) / 0.004)
        held = at_point * sigmoid((self.grasp.held_opening - scene.opening) / 0.002)

        approach = self._approach(scene, point, away_xy)
        carry, release = self._carry(scene)
        target = approach + held[:, None] * (carry - approach)
        target = target + release[:, None] * (self.aim.rest(scene.goal) - target)
        close = np.clip(3.0 * (2.0 * at_point * (1.0 - release) - 1.0), -1.0, 1.0)
        return target, close

    def _approach(self, scene: Scene, point: np.ndarray, away_xy: np.ndarray) -> np.ndarray:
        """Over the object through a funnel that is narrow near it, held up by the obstacle's height on the way."""
        funnel = point[:, 2] + self.grasp.clearance * (1 - np.exp(-((away_xy / self.grasp.funnel) ** 2)))
        return self._travel(scene.tool, point, funnel, self.route.height(scene.tool, load=0.0))

    def _carry(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Tool target that brings the held object to the goal, and how far the object should be let go (B,)."""
        hang = scene.tool - scene.obj
        to_goal = np.linalg.norm(scene.goal[:, :2] - scene.obj[:, :2], axis=1)
        height = self.aim.height(scene.goal, to_goal, hang)
        route = self.route.height(scene.tool, load=self.grasp.load)
        destination = self.aim.detour(self.task.obstacle, scene.obj, scene.goal) + hang
        if self.aim.on_table:
            route = height
        target = self._travel(scene.tool, destination, height, np.maximum(route, 0.0))
        return target, self.aim.release(to_goal)

    @staticmethod
    def _travel(tool: np.ndarray, destination: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Aim at `destination` in the plane at the larger height; hold the plane back while the tool is too low.

        The height aimed at is well past the height that lets go, as in all gates here: a clone's small error must not
        leave it waiting for ever just before one.
        """
        height = np.logaddexp(low / 0.01, high / 0.01) * 0.01
        ready = sigmoid((tool[:, 2] - (height - 0.05)) / 0.012)
        target = np.empty_like(tool)
        target[:, :2] = tool[:, :2] + ready[:, None] * (destination[:, :2] - tool[:, :2])
        target[:, 2] = height
        return target

    def _joint_command(self, q: np.ndarray, translation: np.ndarray) -> np.ndarray:
        """(B, 7) joint commands towards a tool translation (B, 3), the hand turned down, scaled as a whole to fit."""
        _, rotation, jacobian = self.arm.forward(q)
        length = np.linalg.norm(translation, axis=1, keepdims=True)
        translation = translation * (self.max_translation / np.maximum(length, self.max_translation))
        turn = self.turn_gain * orientation_error(rotation, np.broadcast_to(TOOL_DOWN, rotation.shape))
        # A seventh joint too many: without a pull towards one posture the elbow would wander, and a clone with it.
        rest = self.posture_gain * (self.posture - q)
        step = damped_least_squares(jacobian, np.concatenate([translation, turn], axis=1), self.damping, rest)
        command = self.gain * step
        command = command / np.maximum(1.0, np.abs(command).max(axis=1, keepdims=True) / self.saturation)
        return np.clip(command, -1.0, 1.0)
