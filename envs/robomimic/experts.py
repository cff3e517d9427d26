"""Scripted demonstrators of Lift, Can and Square.

Each is a function of the present low-dim observation alone, so that a policy that sees one observation can learn it.
They share a servo for the hand; what differs is a short list of conditions, of which the first that holds decides.
Lengths are in metres, angles in radians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from envs.robomimic.task import ACTION_DIM, RobomimicTask

OPEN, CLOSED = -1.0, 1.0
_UP = np.array([0.0, 0.0, 1.0])
_NEUTRAL_YAW = -np.pi / 2  # of the finger direction at the start
_ROTATION_GAIN = 4.0

A = TypeVar("A", float, np.ndarray)

Expert = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Hand:
    """The hand and the object, as an observation has them; `opening` is the distance between the fingers."""

    position: np.ndarray
    rotation: np.ndarray
    opening: float
    object_position: np.ndarray
    object_quaternion: np.ndarray

    @classmethod
    def of(cls, observation: np.ndarray) -> Hand:
        """From the policy's observation (19,) or (23,)."""
        o = np.asarray(observation, dtype=np.float64)
        return cls(o[:3], _matrix(o[3:7]), float(o[7] - o[8]), o[9:12], o[12:16])

    @property
    def yaw(self) -> float:
        """Angle of the finger direction about the vertical."""
        return float(np.arctan2(self.rotation[1, 1], self.rotation[0, 1]))

    @property
    def object_yaw(self) -> float:
        """Angle of the object's x axis about the vertical."""
        x_axis = _matrix(self.object_quaternion)[:, 0]
        return float(np.arctan2(x_axis[1], x_axis[0]))

    def servo(self, target: np.ndarray, yaw_error: float, gripper: float, gain: float) -> np.ndarray:
        """(7,) action towards `target` (3,), with the tool pointing down and turned by `yaw_error`."""
        x, y, _ = self.rotation[:, 2]
        rotation = np.array([-y, x, yaw_error])  # tool axis crossed with straight down, then the turn
        action = np.empty(ACTION_DIM)
        action[:3] = gain * (target - self.position)
        action[3:6] = _ROTATION_GAIN * rotation
        action[6] = gripper
        return np.clip(action, -1.0, 1.0)


def lift(observation: np.ndarray, gain: float = 16.0) -> np.ndarray:
    """(7,) action: over the cube, down around it, close, up."""
    hand = Hand.of(observation)
    cube = hand.object_position
    horizontal, above = np.hypot(*(hand.position - cube)[:2]), hand.position[2] - cube[2]
    turn = _wrap(hand.object_yaw - hand.yaw, np.pi / 2)
    if horizontal < 0.02 and abs(above) < 0.02:
        target = cube + 0.10 * _UP if hand.opening < 0.05 else cube
        return hand.servo(target, turn, CLOSED, gain)
    if (horizontal < 0.015 and abs(turn) < 0.15) or (horizontal < 0.02 and above < 0.04):
        return hand.servo(cube, turn, OPEN, gain)
    return hand.servo(cube + 0.06 * _UP, turn, OPEN, gain)


_CAN_PLACE = np.array([0.1975, 0.4025])


def can(observation: np.ndarray, gain: float = 16.0) -> np.ndarray:
    """(7,) action: grasp the can, over to its quarter of the bin, down, let go, up."""
    hand = Hand.of(observation)
    thing = hand.object_position
    offset = hand.position - thing
    horizontal, above = np.hypot(*offset[:2]), offset[2]
    turn = _wrap(_NEUTRAL_YAW - hand.yaw, 2 * np.pi)
    away = np.abs(thing[:2] - _CAN_PLACE)
    if away[0] < 0.085 and away[1] < 0.11 and thing[2] < 0.90:
        target = np.append(hand.position[:2], 1.10 if hand.opening > 0.07 else hand.position[2])
        return hand.servo(target, turn, OPEN, gain)
    if horizontal < 0.02 and abs(above) < 0.03:
        if hand.opening > 0.062:
            return hand.servo(thing, turn, CLOSED, gain)
        goal = thing.copy()
        if np.hypot(*(thing[:2] - _CAN_PLACE)) > 0.05:
            goal[2] = 1.00
            if thing[2] > 0.93:
                goal[:2] = _CAN_PLACE
        else:
            goal[:] = *_CAN_PLACE, 0.86
        return hand.servo(goal + offset, turn, CLOSED, gain)
    if horizontal < 0.012 or (horizontal < 0.03 and above < 0.06):
        return hand.servo(thing, turn, OPEN, gain)
    return hand.servo(thing + 0.12 * _UP, turn, OPEN, gain)


_PEG = np.array([0.23, 0.10])
_GRASP_X = 0.067  # along the handle; at the handle's site (0.054) the fingers touch the nut's flange


def square(observation: np.ndarray, gain: float = 12.0) -> np.ndarray:
    """(7,) action: grasp the nut's handle, lift, carry over the peg while turning, lower, let go."""
    hand = Hand.of(observation)
    nut, nut_yaw = hand.object_position, hand.object_yaw
    handle = np.array([np.cos(nut_yaw), np.sin(nut_yaw), 0.0])
    grasp = nut + _GRASP_X * handle
    offset = hand.position - grasp
    horizontal, above = np.hypot(*offset[:2]), offset[2]
    error = np.hypot(*(nut[:2] - _PEG))
    # Fingers across the handle; of the two equivalent turns the one within 90 degrees of the neutral one.
    across = _NEUTRAL_YAW + _wrap(nut_yaw + np.pi / 2 - _NEUTRAL_YAW, np.pi)
    turn = _wrap(across - hand.yaw, 2 * np.pi)
    if error < 0.02 and nut[2] < 0.865:
        rise = 0.10 if hand.opening > 0.06 else 0.0
        return hand.servo(hand.position + rise * _UP, 0.0, OPEN, gain)
    if horizontal < 0.025 and abs(above) < 0.015:
        if hand.opening > 0.036:
            return hand.servo(grasp, turn, CLOSED, gain)
        goals = np.array([np.pi / 2, np.pi, -np.pi / 2])  # never 0: the hand would have to reach too far
        errors = _wrap(goals - nut_yaw, 2 * np.pi)
        nut_turn = float(errors[np.abs(errors).argmin()])
        near = 0.02 if nut[2] < 0.962 else 0.007
        if error < near and abs(nut_turn) < 0.08:
            goal = np.array([*_PEG, 0.83])
        elif nut[2] < 0.975 and error > 0.02:
            goal, nut_turn = np.array([*nut[:2], 1.05]), 0.0
        else:
            goal = np.array([*_PEG, 1.02 if error > 0.02 else 0.99])
        return hand.servo(hand.position + goal - nut, nut_turn, CLOSED, gain)
    if (horizontal < 0.01 and abs(turn) < 0.1) or (horizontal < 0.02 and above < 0.03 and abs(turn) < 0.2):
        return hand.servo(grasp, turn, OPEN, gain)
    return hand.servo(grasp + 0.08 * _UP, turn, OPEN, gain)


EXPERTS: dict[str, Expert] = {"lift": lift, "can": can, "square": square}
"""By task; of observations as robosuite 1.4 has them."""


def expert_of(task: RobomimicTask) -> Expert:
    """The task's demonstrator, of the policy's observations as the task has them."""
    expert = EXPERTS[task.name]
    if task.arguments.series == "1.4" or task.name == "lift":
        return expert
    return lambda observation: expert(
        np.concatenate([observation[:9], observation[16:23]])
    )  # the object's pose is last


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion (x, y, z, w)."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _wrap(angle: A, period: float) -> A:
    """The equivalent of `angle` in [-period/2, period/2)."""
    wrapped: A = (angle + period / 2) % period - period / 2
    return wrapped
