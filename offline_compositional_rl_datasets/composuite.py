"""CompoSuite's tasks: their axes, the layout of their states, and the orders that published results depend on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from offline_compositional_rl_datasets.layout import Factor, FactoredLayout
from offline_compositional_rl_datasets.task import Task
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


COMPOSUITE = FactoredLayout(
    factors=(
        Factor("object", 14, "object"),
        Factor("obstacle", 14, "obstacle"),
        Factor("goal", 17, "objective"),
        Factor("proprioception", 32, "robot"),
    ),
    action_dim=8,
    axes=tuple(AXES.items()),
    ids_after="goal",
    relative_quaternions=(slice(10, 14), slice(24, 28), slice(38, 42)),
    velocities=(slice(59, 66), slice(75, 77)),
    quaternions=tuple(slice(i, i + 4) for i in (3, 10, 17, 24, 31, 38, 69)),
    angles=((slice(45, 52), slice(52, 59)),),
    binary_actions=(7,),
)


@dataclass(frozen=True, order=True)
class CompoSuiteTask(Task):
    """A robot, an object, an obstacle and an objective, e.g. `IIWA_Box_None_PickPlace`."""

    robot: str
    object: str
    obstacle: str
    objective: str

    layout: ClassVar[FactoredLayout] = COMPOSUITE
    family: ClassVar[str] = "composuite"

    @property
    def label(self) -> str:
        """Without the robot, which most figures have one of."""
        return f"{self.object} {self.obstacle} {self.objective}"

    def data_folder(self, dataset_type: str) -> str:
        """`expert-iiwa-offline-comp-data`, as the data are published."""
        return f"{dataset_type}-{self.robot.lower()}-offline-comp-data"


def described(table: Mapping[str, T], task: CompoSuiteTask, axis: str, where: str) -> T:
    """What a table says of a task's element on an axis. Raises `TaskError` where its file `where` has no such entry."""
    element = getattr(task, axis)
    if element not in table:
        raise TaskError(f"{task}: {where} says nothing of the {axis} {element!r}, only of {', '.join(table)}")
    return table[element]


def all_tasks() -> list[CompoSuiteTask]:
    """All tasks (CompoSuite's are 256) in CompoSuite's order of enumeration (the last axis runs fastest)."""
    axes = _axes_in_order(_ENUMERATION)
    return [CompoSuiteTask(**dict(zip(axes, elements, strict=True))) for elements in itertools.product(*axes.values())]


def tasks_of(robot: str) -> list[CompoSuiteTask]:
    """All tasks of a robot, in CompoSuite's order. Raises `TaskError` for an unknown robot."""
    if robot not in AXES["robot"]:
        raise TaskError(f"unknown robot {robot!r}: expected one of {', '.join(AXES['robot'])}")
    return [task for task in all_tasks() if task.robot == robot]
