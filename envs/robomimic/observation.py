"""What is read off the state of a Robomimic task: its observations, and whether it is solved."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from envs.robomimic.scene import Scene
from envs.task_env import HoldsViews

OBJECT_BODIES = {"lift": "cube_main", "can": "Can_main", "square": "SquareNut_main"}
_LIFTED = 0.04  # m above the table


class Observer(HoldsViews, dict[str, Callable[[], np.ndarray]]):
    """Observations of the present state of `data` by the data files' keys: a call gives (d,) float64.

    `object` of robosuite 1.4 is the object's position and quaternion, then where it is from the hand: in Lift the
    hand's position minus the cube's, else position and quaternion in the hand's frame. 1.5 turns the sign in Lift. In
    Can and Square it puts the part relative to the hand first and computes it from the object's pose of one control
    step ago, zeros at the first observation of an episode: `begin` and `remember` say when.
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        robot = scene.robosuite.robots[0]
        site, hand = robot.eef_site_id, model.body(robot.robot_model.eef_name).id
        body = model.body(OBJECT_BODIES[scene.task.name]).id
        arm, fingers = slice(0, 7), np.array(robot._ref_gripper_joint_pos_indexes)
        finger_speeds = np.array(robot._ref_gripper_joint_vel_indexes)
        position, quaternion = data.site_xpos[site], data.xquat[hand]
        object_position, object_quaternion = data.xpos[body], data.xquat[body]
        jacobian = np.zeros((6, model.nv))
        self._object_position, self._object_quaternion = object_position, object_quaternion
        self.memory = np.full(7, np.nan)
        """The object's pose one control step ago; not-a-number at the start of an episode."""

        def speed(part: slice) -> np.ndarray:
            mujoco.mj_comPos(model, data)  # what the Jacobian is made of is one substep behind
            mujoco.mj_jacBody(model, data, jacobian[:3], jacobian[3:], hand)
            return jacobian[part] @ data.qvel

        def cube() -> np.ndarray:
            return np.concatenate([object_position, _xyzw(object_quaternion), position - object_position])

        def cube_15() -> np.ndarray:
            return np.concatenate([object_position, _xyzw(object_quaternion), object_position - position])

        def from_the_hand(place: np.ndarray, turn: np.ndarray) -> np.ndarray:
            """(7,) position and quaternion of a pose in the hand's frame."""
            away, difference, relative = np.empty(3), place - position, np.empty(4)
            inverse = quaternion * (1, -1, -1, -1)
            mujoco.mju_rotVecQuat(away, difference, inverse)
            mujoco.mju_mulQuat(relative, inverse, turn)
            return np.concatenate([away, _xyzw(_with_positive_w(relative))])

        def pose_then_from_the_hand() -> np.ndarray:
            relative = from_the_hand(object_position, object_quaternion)
            return np.concatenate([object_position, _xyzw(object_quaternion), relative])

        def from_the_hand_then_pose_15() -> np.ndarray:
            first = np.isnan(self.memory[0])
            relative = np.zeros(7) if first else from_the_hand(self.memory[:3], self.memory[3:])
            return np.concatenate([relative, object_position, _xyzw(object_quaternion)])

        def site_quaternion() -> np.ndarray:
            wxyz = np.empty(4)
            mujoco.mju_mat2Quat(wxyz, data.site_xmat[site])
            return _xyzw(_with_positive_w(wxyz))

        if scene.arguments.series == "1.4":
            objects = cube if scene.task.name == "lift" else pose_then_from_the_hand
        else:
            objects = cube_15 if scene.task.name == "lift" else from_the_hand_then_pose_15

        every = {
            "robot0_eef_pos": lambda: position.copy(),
            "robot0_eef_quat": lambda: _xyzw(quaternion),
            "robot0_eef_quat_site": site_quaternion,
            "robot0_eef_vel_lin": lambda: speed(slice(0, 3)),
            "robot0_eef_vel_ang": lambda: speed(slice(3, 6)),
            "robot0_gripper_qpos": lambda: data.qpos[fingers],
            "robot0_gripper_qvel": lambda: data.qvel[finger_speeds],
            "robot0_joint_pos": lambda: data.qpos[arm].copy(),
            "robot0_joint_pos_cos": lambda: np.cos(data.qpos[arm]),
            "robot0_joint_pos_sin": lambda: np.sin(data.qpos[arm]),
            "robot0_joint_vel": lambda: data.qvel[arm].copy(),
            "object": objects,
        }
        super().__init__({key: every[key] for key in scene.task.observation_dims})

    def begin(self) -> None:
        """An episode begins: there is no control step before."""
        self.memory[:] = np.nan

    def remember(self) -> None:
        """A control step follows."""
        self.memory[:3], self.memory[3:] = self._object_position, self._object_quaternion


def _xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Scalar last, as robosuite's observations have it; MuJoCo's is first."""
    return quaternion[[1, 2, 3, 0]]


def _with_positive_w(quaternion: np.ndarray) -> np.ndarray:
    """(w, x, y, z) with w >= 0, as robosuite's come from a rotation matrix."""
    return -quaternion if quaternion[0] < 0 else quaternion


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
