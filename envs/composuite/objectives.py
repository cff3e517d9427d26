"""Reward and success of the four objectives.

Shaped reward: the largest of an objective's stage values, or exactly 1 on success. Sparse: 1 on success, else 0.
Everything is judged at the lagging poses (`observation.Poses`). Units: m.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import acos, inf, tanh

import numpy as np

from envs.composuite.arenas import BIN2_HALF, bin2_pos, shelf_pos, trashcan_pos

_BIN_Z = 0.8
_CAN_HALF = 0.08
_SHELF_HALF_X = 0.2


@dataclass(frozen=True)
class Situation:
    """What an objective is judged by: object, tool and goal position (3,), the hand's matrix, grasp and command."""

    obj: np.ndarray
    tool: np.ndarray
    goal: np.ndarray
    hand_matrix: np.ndarray
    grasped: bool
    gripper_command: float


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))


def _reach(s: Situation) -> float:
    return 0.2 * (1 - tanh(10 * _distance(s.tool, s.obj)))


def _grasp(s: Situation) -> float:
    return 0.3 if s.grasped else 0.0


def _lift(s: Situation, height: float) -> float:
    return 0.3 + 0.2 * (1 - tanh(5 * abs(height - s.obj[2]))) if s.grasped else 0.0


def _hover(s: Situation, lift: float, centre: tuple[float, ...], above: bool) -> float:
    if lift <= 0.45:
        return 0.0
    away = float(np.hypot(centre[0] - s.obj[0], centre[1] - s.obj[1]))
    return (0.5 if above else lift) + 0.2 * (1 - tanh(2 * away))


class Objective(ABC):
    """Success and the shaped stages of one objective. An object above the `ceiling` ends the episode."""

    ceiling = inf

    @abstractmethod
    def success(self, s: Situation) -> bool: ...

    @abstractmethod
    def stages(self, s: Situation) -> tuple[float, ...]: ...

    def ends_episode(self, s: Situation) -> bool:
        """True where the objective forbids to go on."""
        return bool(s.obj[2] > self.ceiling)

    def reward(self, s: Situation, *, shaped: bool) -> tuple[float, bool]:
        if self.success(s):
            return 1.0, True
        return (max(self.stages(s)) if shaped else 0.0), False


class PickPlace(Objective):
    """Put the object down in the second bin."""

    centre = bin2_pos("PickPlace")

    def _above_bin(self, obj: np.ndarray) -> bool:
        return bool(abs(obj[0] - self.centre[0]) < BIN2_HALF[0] and abs(obj[1] - self.centre[1]) < BIN2_HALF[1])

    def success(self, s: Situation) -> bool:
        low = _BIN_Z < s.obj[2] < _BIN_Z + 0.1
        return self._above_bin(s.obj) and low and 1 - tanh(10 * _distance(s.tool, s.obj)) > 0.35

    def stages(self, s: Situation) -> tuple[float, ...]:
        above = self._above_bin(s.obj)
        lift = _lift(s, 1.05)
        drop = 0.7 + 0.2 * (1 - tanh(5 * max(s.obj[2] - (_BIN_Z + 0.1), 0))) if s.grasped and above else 0.0
        return (_reach(s), _grasp(s), lift, _hover(s, lift, self.centre, above), drop)


class Push(Objective):
    """Slide the object to the goal without lifting it."""

    ceiling = _BIN_Z + 0.1

    def success(self, s: Situation) -> bool:
        away = float(np.hypot(s.obj[0] - s.goal[0], s.obj[1] - s.goal[1]))
        return bool(away <= 0.03 and s.obj[2] <= 0.9)

    def stages(self, s: Situation) -> tuple[float, ...]:
        approach = 0.3 + 0.4 * (1 - tanh(5 * _distance(s.goal, s.obj))) if s.grasped else 0.0
        return (_reach(s), _grasp(s), approach)


class Shelf(Objective):
    """Put the object between the shelf's blocks."""

    centre = shelf_pos()

    def success(self, s: Situation) -> bool:
        inside_x = abs(s.obj[0] - self.centre[0]) < _SHELF_HALF_X
        return bool(inside_x and 0.18 < s.obj[1] < 0.33 and 0.945 < s.obj[2] < 1.095)

    def stages(self, s: Situation) -> tuple[float, ...]:
        in_front = abs(s.obj[0] - self.centre[0]) < _SHELF_HALF_X and 0.995 < s.obj[2] < 1.095
        align = approach = 0.0
        if in_front:
            angle = acos(min(1.0, max(-1.0, s.hand_matrix[1, 2])))
            align = 0.5 + 0.3 * (1 - tanh(angle))
            if align > 0.6:
                approach = 0.8 + 0.1 * (1 - tanh(5 * max(0.23 - s.obj[1], 0)))
        return (_reach(s), _grasp(s), _lift(s, 1.05), align, approach)


class Trashcan(Objective):
    """Drop the object into the can and keep the gripper out of it."""

    centre = trashcan_pos()

    def _above_can(self, p: np.ndarray) -> bool:
        return bool(abs(p[0] - self.centre[0]) < _CAN_HALF and abs(p[1] - self.centre[1]) < _CAN_HALF)

    def _inside(self, p: np.ndarray) -> bool:
        return self._above_can(p) and 0.83 < p[2] < 0.93

    def success(self, s: Situation) -> bool:
        return self._inside(s.obj) and not self._inside(s.tool)

    def stages(self, s: Situation) -> tuple[float, ...]:
        if self._inside(s.obj):
            return (0.0,) * 5
        above = self._above_can(s.obj)
        lift = _lift(s, 1.11)
        drop = 0.95 if above and s.gripper_command < 0 else 0.0
        return (_reach(s), _grasp(s), lift, _hover(s, lift, self.centre, above), drop)


OBJECTIVES: dict[str, Objective] = {
    "PickPlace": PickPlace(),
    "Push": Push(),
    "Shelf": Shelf(),
    "Trashcan": Trashcan(),
}
