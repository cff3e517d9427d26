"""A CompoSuite task: one element of each of four axes. Nobody else takes a task's name apart."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from runtime.errors import TaskError

T = TypeVar("T")

# One-hot order: the position of an element is its index in the id block of an observation.
ROBOTS = ("IIWA", "Jaco", "Panda", "Kinova3")
OBJECTS = ("Box", "Dumbbell", "Plate", "Hollowbox")
OBSTACLES = ("None", "ObjectWall", "ObjectDoor", "GoalWall")
OBJECTIVES = ("PickPlace", "Push", "Shelf", "Trashcan")

# Axes in the order of their one-hots within the 16-dimensional condition.
AXES: dict[str, tuple[str, ...]] = {
    "object": OBJECTS,
    "robot": ROBOTS,
    "obstacle": OBSTACLES,
    "objective": OBJECTIVES,
}

# Orders that published results depend on. An axis' elements that are not named here come after those that are.

# CompoSuite enumerates tasks in another order than it numbers their one-hots; seeded splits depend on it.
_ENUMERATION = {
    "robot": ("IIWA", "Jaco", "Kinova3", "Panda"),
    "object": OBJECTS,
    "obstacle": ("None", "GoalWall", "ObjectDoor", "ObjectWall"),
    "objective": OBJECTIVES,
}
# What a seed of the published curriculum shuffles.
_CURRICULUM = {
    "robot": ("IIWA", "Panda", "Kinova3", "Jaco"),
    "objective": ("Trashcan", "PickPlace", "Shelf", "Push"),
    "object": ("Plate", "Box", "Hollowbox", "Dumbbell"),
    "obstacle": ("ObjectDoor", "GoalWall", "ObjectWall", "None"),
}


def _axes_in_order(order: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """All elements of all axes: first those that `order` names, as it names them."""
    named = {axis: [element for element in elements if element in AXES[axis]] for axis, elements in order.items()}
    return {axis: (*first, *(e for e in AXES[axis] if e not in first)) for axis, first in named.items()}


def curriculum_axes() -> dict[str, tuple[str, ...]]:
    """The axes and their elements in the order that the curriculum's seed shuffles."""
    return _axes_in_order(_CURRICULUM)


@dataclass(frozen=True, order=True)
class Task:
    """A robot, an object, an obstacle and an objective, e.g. `IIWA_Box_None_PickPlace`.

    Raises `TaskError` for an element that its axis does not have.
    """

    robot: str
    object: str
    obstacle: str
    objective: str

    def __post_init__(self) -> None:
        for axis, elements in AXES.items():
            element = getattr(self, axis)
            if element not in elements:
                near = difflib.get_close_matches(str(element), elements, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TaskError(f"unknown {axis} {element!r}: expected one of {', '.join(elements)}{hint}")

    @classmethod
    def parse(cls, name: str) -> Task:
        """The task of a name `Robot_Object_Obstacle_Objective`."""
        parts = name.split("_")
        if len(parts) != len(AXES):
            raise TaskError(f"task {name!r} has {len(parts)} parts: expected Robot_Object_Obstacle_Objective")
        return cls(*parts)

    @property
    def name(self) -> str:
        return f"{self.robot}_{self.object}_{self.obstacle}_{self.objective}"

    @property
    def elements(self) -> tuple[str, str, str, str]:
        """(robot, object, obstacle, objective), the order of split files."""
        return (self.robot, self.object, self.obstacle, self.objective)

    def index(self, axis: str) -> int:
        """Position of this task's element in the one-hot of `axis`."""
        return AXES[axis].index(getattr(self, axis))

    @property
    def one_hot(self) -> np.ndarray:
        """(16,) float32: the one-hots of object, robot, obstacle and objective, the condition of the generator."""
        blocks = [np.eye(len(elements), dtype=np.float32)[self.index(axis)] for axis, elements in AXES.items()]
        return np.concatenate(blocks)

    def __str__(self) -> str:
        return self.name


def described(table: Mapping[str, T], task: Task, axis: str, where: str) -> T:
    """What a table says of a task's element on an axis. Raises `TaskError` where its file `where` has no such entry."""
    element = getattr(task, axis)
    if element not in table:
        raise TaskError(f"{task}: {where} says nothing of the {axis} {element!r}, only of {', '.join(table)}")
    return table[element]


def all_tasks() -> list[Task]:
    """All tasks (CompoSuite's are 256) in CompoSuite's order of enumeration (the last axis runs fastest)."""
    axes = _axes_in_order(_ENUMERATION)
    return [Task(**dict(zip(axes, elements, strict=True))) for elements in itertools.product(*axes.values())]


def tasks_of(robot: str) -> list[Task]:
    """All tasks of a robot, in CompoSuite's order. Raises `TaskError` for an unknown robot."""
    if robot not in AXES["robot"]:
        raise TaskError(f"unknown robot {robot!r}: expected one of {', '.join(AXES['robot'])}")
    return [task for task in all_tasks() if task.robot == robot]
