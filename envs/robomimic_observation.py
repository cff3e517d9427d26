"""What is read off the state of a Robomimic task: its observations, and whether it is solved."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from envs.robomimic_scene import Scene
from envs.task_env import HoldsViews

OBJECT_BODIES = {"lift": "cube_main", "can": "Can_main", "square": "SquareNut_main"}
_LIFTED = 0.04  # m above the table


class Observer(HoldsViews, dict[str, Callable[[], np.ndarray]]):
    """Observations of the present state of `data` by the data files' keys: a call gives (d,) float64."""

    def __init__(self, scene: Scene, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        robot = scene.robosuite.robots[0]
        site, hand = robot.eef_site_id, model.body(robot.robot_model.eef_name).id
        body = model.body(OBJECT_BODIES[scene.task.name]).id
        arm, fingers = slice(0, 7), np.array(robot._ref_gripper_joint_pos_indexes)
        finger_speeds = np.array(robot._ref_gripper_joint_vel_indexes)
        position, quaternion = data.site_xpos[site], data.xquat[hand]
        object_position, object_quaternion = data.xpos[body], data.xquat[body]
        jacobian = np.zeros((6, model.nv))

        def speed(part: slice) -> np.ndarray:
            mujoco.mj_comPos(model, data)  # what the Jacobian is made of is one substep behind
            mujoco.mj_jacBody(model, data, jacobian[:3], jacobian[3:], hand)
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
                "object": cube if scene.task.name == "lift" else object_and_relative_pose,
            }
        )


def _xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Scalar last, as robosuite's observations have it; MuJoCo's is first."""
    return quaternion[[1, 2, 3, 0]]


def solved_test(scene: Scene, model: mujoco.MjModel, data: mujoco.MjData) -> Callable[[], bool]:
    """Whether the present state of `data` is solved, by the rule of robosuite's own check."""
    original = scene.robosuite
    hand = data.site_xpos[original.robots[0].eef_site_id]
    thing = data.xpos[model.body(OBJECT_BODIES[scene.task.name]).id]

    def away() -> bool:
        return bool(1 - np.tanh(10.0 * np.linalg.norm(hand - thing)) < 0.6)

    if scene.task.name == "lift":
        least = float(original.model.mujoco_arena.table_offset[2]) + _LIFTED
        return lambda: bool(thing[2] > least)
    if scene.task.name == "can":
        return lambda: not original.not_in_bin(thing, original.object_id) and away()
    return lambda: bool(original.on_peg(thing, original.nut_id)) and away()
