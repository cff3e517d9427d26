"""Which accepted sets train an iteration's generator: all at first, later those of one axis element at a time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offline_compositional_rl_datasets.task import Task

FIRST_ITERATION = 5
"""The curriculum starts with this iteration."""


@dataclass(frozen=True)
class Phase:
    """Use the source tasks that contain `element` on `axis`; None uses all."""

    axis: str
    element: str | None

    def __str__(self) -> str:
        return f"{self.axis}: {self.element or 'ALL'}"


def schedule(axes: Mapping[str, Sequence[str]], seed: int) -> list[Phase]:
    """For each axis, in shuffled order, each of its elements in shuffled order and then all together.

    `axes` are a family's `curriculum_axes`. Those are 20 phases for four elements of four axes; CompoSuite's and a seed
    give the published ones.
    """
    generator = random.Random(seed)
    shuffled = [(axis, list(elements)) for axis, elements in axes.items()]
    generator.shuffle(shuffled)
    phases = []
    for axis, elements in shuffled:
        generator.shuffle(elements)
        phases += [Phase(axis, element) for element in elements] + [Phase(axis, None)]
    return phases


def phase_of(iteration: int, axes: Mapping[str, Sequence[str]], seed: int) -> Phase | None:
    """The phase of an iteration; None before the curriculum starts."""
    if iteration < FIRST_ITERATION:
        return None
    phases = schedule(axes, seed)
    return phases[(iteration - FIRST_ITERATION) % len(phases)]


def filter_sources(sources: Mapping[int, Sequence[Task]], phase: Phase | None) -> dict[int, tuple[Task, ...]]:
    """The accepted sets (iteration -> tasks) that the phase lets through."""
    if phase is None or phase.element is None:
        return {iteration: tuple(tasks) for iteration, tasks in sources.items()}
    return {
        iteration: tuple(task for task in tasks if getattr(task, phase.axis) == phase.element)
        for iteration, tasks in sources.items()
    }
