"""What is read off the state of a Robomimic task: its observations, and whether it is solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np

from envs.robomimic.assembly import tool_hang_flags, transport_flags
from envs.robomimic.scene import Scene
from envs.task_env import HoldsViews

OBJECT_BODIES = {"lift": "cube_main", "can": "Can_main", "square": "SquareNut_main"}
_LIFTED = 0.04  # m above the table

Look = Callable[[], np.ndarray]


class Observables(HoldsViews, dict[str, Callable[[], np.ndarray]]):
    """Observations of the present state of `data` by the data files' keys: a call gives (d,) float64.

    `object` of robosuite 1.4 is the object's position and quaternion, then where it is from the hand: in Lift the
    hand's position minus the cube's, else position and quaternion in the hand's frame. 1.5 turns the sign in Lift. In
    Can and Square it puts the part relative to the hand first and computes it from the object's pose of one control
    step ago, zeros at the first observation of an episode: `begin` and `remember` say when. ToolHang has the four parts
    for stand, frame and tool, then two flags; Transport the poses of payload, trash and lid, the places of two bins,
    four differences to the hands, and two flags (`envs.robomimic.assembly`).
    """

    def __init__(self, scene: Scene, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        name, series = scene.task.name, scene.arguments.series
        hands = [_Hand(robot, model, data) for robot in scene.robosuite.robots]
        self.memory = np.full(7, np.nan)
        """The object's pose one control step ago; not-a-number at the start of an episode."""
        self._object: _Pose | None = None
        if name == "tool_hang":
            objects = _stand_frame_and_tool(scene, hands[0], model, data)
        elif name == "transport":
            objects = _payload_and_trash(scene, hands, model, data)
        else:
            body = model.body(OBJECT_BODIES[name]).id
            thing = self._object = _Pose(data.xpos[body], data.xquat[body])
            if name == "lift":
                objects = _cube(hands[0], thing, 1 if series == "1.4" else -1)
            elif series == "1.4":
                objects = _pose_then_from_the_hand(hands[0], thing)
            else:
                objects = _from_the_hand_then_pose(hands[0], thing, self.memory)
        every = {f"robot{i}_{key}": look for i, hand in enumerate(hands) for key, look in hand.looks().items()}
        every["object"] = objects
        super().__init__({key: every[key] for key in scene.task.observation_dims})

    def begin(self) -> None:
        """An episode begins: there is no control step before."""
        self.memory[:] = np.nan

    def remember(self) -> None:
        """A control step follows."""
        if self._object is not None:
            self.memory[:3], self.memory[3:] = self._object.position, self._object.quaternion


class _Pose(NamedTuple):
    """Views: position (3,) in m, quaternion (4,) w, x, y, z."""

    position: np.ndarray
    quaternion: np.ndarray


class _Hand:
    """One arm, its hand and fingers."""

    def __init__(self, robot: Any, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        self._site, self._body = robot.eef_site_id, model.body(robot.robot_model.eef_name).id
        self.position, self.quaternion = data.site_xpos[self._site], data.xquat[self._body]
        first_q, first_v = int(robot._ref_joint_pos_indexes[0]), int(robot._ref_joint_vel_indexes[0])
        self._arm, self._speeds = data.qpos[first_q : first_q + 7], data.qvel[first_v : first_v + 7]
        self._fingers = np.array(robot._ref_gripper_joint_pos_indexes)
        self._finger_speeds = np.array(robot._ref_gripper_joint_vel_indexes)
        self._jacobian = np.zeros((6, model.nv))

    def looks(self) -> dict[str, Callable[[], np.ndarray]]:
        """Its observations, without the robot's name."""
        data, arm = self.data, self._arm
        return {
            "eef_pos": lambda: self.position.copy(),
            "eef_quat": lambda: _xyzw(self.quaternion),
            "eef_quat_site": lambda: _of_matrix(data.site_xmat[self._site]),
            "eef_vel_lin": lambda: self._speed(slice(0, 3)),
            "eef_vel_ang": lambda: self._speed(slice(3, 6)),
            "gripper_qpos": lambda: data.qpos[self._fingers],
            "gripper_qvel": lambda: data.qvel[self._finger_speeds],
            "joint_pos": arm.copy,
            "joint_pos_cos": lambda: np.cos(arm),
            "joint_pos_sin": lambda: np.sin(arm),
            "joint_vel": self._speeds.copy,
        }

    def _speed(self, part: slice) -> np.ndarray:
        mujoco.mj_comPos(self.model, self.data)  # what the Jacobian is made of is one substep behind
        mujoco.mj_jacBody(self.model, self.data, self._jacobian[:3], self._jacobian[3:], self._body)
        speed: np.ndarray = self._jacobian[part] @ self.data.qvel
        return speed

    def sees(self, place: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """(7,) position and quaternion (x, y, z, w) of a pose in the hand's frame."""
        away, difference, relative = np.empty(3), place - self.position, np.empty(4)
        inverse = self.quaternion * (1, -1, -1, -1)
        mujoco.mju_rotVecQuat(away, difference, inverse)
        mujoco.mju_mulQuat(relative, inverse, turn)
        return np.concatenate([away, _xyzw(_with_positive_w(relative))])


def _cube(hand: _Hand, cube: _Pose, sign: int) -> Look:
    def look() -> np.ndarray:
        away = (hand.position - cube.position) if sign > 0 else (cube.position - hand.position)
        return np.concatenate([cube.position, _xyzw(cube.quaternion), away])

    return look


def _pose_then_from_the_hand(hand: _Hand, thing: _Pose) -> Look:
    def look() -> np.ndarray:
        return np.concatenate([thing.position, _xyzw(thing.quaternion), hand.sees(*thing)])

    return look


def _from_the_hand_then_pose(hand: _Hand, thing: _Pose, memory: np.ndarray) -> Look:
    """Of robosuite 1.5: where the thing was one control step ago."""

    def look() -> np.ndarray:
        relative = np.zeros(7) if np.isnan(memory[0]) else hand.sees(memory[:3], memory[3:])
        return np.concatenate([relative, thing.position, _xyzw(thing.quaternion)])

    return look


def _stand_frame_and_tool(scene: Scene, hand: _Hand, model: mujoco.MjModel, data: mujoco.MjData) -> Look:
    base, corner = model.geom("stand_base").id, model.site("frame_intersection_site").id
    tool = model.body(scene.robosuite.tool.root_body).id
    poses = (
        (data.geom_xpos[base], data.geom_xmat[base]),
        (data.site_xpos[corner], data.site_xmat[corner]),
        (data.xpos[tool], data.xmat[tool]),
    )
    flags = tool_hang_flags(scene.robosuite, model, data)

    def look() -> np.ndarray:
        parts = []
        for place, matrix in poses:
            turn = _of_matrix(matrix)
            parts += [place, turn, hand.sees(place, turn[[3, 0, 1, 2]])]
        return np.concatenate([*parts, np.array(flags(), float)])

    return look


def _payload_and_trash(scene: Scene, hands: list[_Hand], model: mujoco.MjModel, data: mujoco.MjData) -> Look:
    group = scene.robosuite.transport
    payload, trash = (model.body(thing.root_body).id for thing in (group.payload, group.trash))
    handle, target_bin, trash_bin = (
        model.geom(names[0]).id
        for names in (group.lid.handle_geoms, group.target_bin.base_geoms, group.trash_bin.base_geoms)
    )
    poses = (
        (data.xpos[payload], data.xmat[payload]),
        (data.xpos[trash], data.xmat[trash]),
        (data.geom_xpos[handle], data.geom_xmat[handle]),
    )
    flags = transport_flags(scene.robosuite, model, data)

    def look() -> np.ndarray:
        seen = [part for place, matrix in poses for part in (place, _of_matrix(matrix))]
        (hammer, _), (box, _), (lid, _) = poses
        first, second = (hand.position for hand in hands)
        away = [hammer - first, lid - first, hammer - second, box - second]
        return np.concatenate(
            [*seen, data.geom_xpos[target_bin], data.geom_xpos[trash_bin], *away, np.array(flags(), float)]
        )

    return look


def _of_matrix(matrix: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w) with w >= 0 of a rotation (9,)."""
    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, matrix)
    return _xyzw(_with_positive_w(wxyz))


def _xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Scalar last, as robosuite's observations have it; MuJoCo's is first."""
    return quaternion[[1, 2, 3, 0]]


def _with_positive_w(quaternion: np.ndarray) -> np.ndarray:
    """(w, x, y, z) with w >= 0, as robosuite's come from a rotation matrix."""
    return -quaternion if quaternion[0] < 0 else quaternion


def solved_test(scene: Scene, model: mujoco.MjModel, data: mujoco.MjData) -> Callable[[], bool]:
    """Whether the present state of `data` is solved, by the rule of robosuite's own check."""
    original = scene.robosuite
    if scene.task.name in ("tool_hang", "transport"):
        make = tool_hang_flags if scene.task.name == "tool_hang" else transport_flags
        flags = make(original, model, data)
        return lambda: all(flags())
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
