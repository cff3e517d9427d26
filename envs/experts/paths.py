"""Which way round each obstacle (m, world frame): in the plane, through the gap beside or between the walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.experts.gates import blend, gate
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from runtime.errors import TaskError


@dataclass(frozen=True)
class Passage:
    """A plane of walls across `axis` (0: x, 1: y) that is passed in the positive direction, and its gap.

    Between `start` and `end` along the axis the other coordinate must lie in `gap`, and the height be at least
    `height`.
    """

    axis: int
    start: float
    end: float
    gap: tuple[float, float]
    height: float = 0.0
    margin: float = 0.03
    width: float = 0.012

    def before(self, position: np.ndarray) -> np.ndarray:
        """(B,) 1 before or between the walls .. 0 beyond them."""
        return gate(self.end - position[:, self.axis], self.width)

    def via(
        self,
        position: np.ndarray,
        destination: np.ndarray,
        *,
        room: float = 0.08,
        ready: np.ndarray | float = 1.0,
        berth: float = 0.0,
    ) -> np.ndarray:
        """(B, 3) where to go now from `position` (B, 3) to get to `destination` (B, 3).

        The way opens up to `room` below the height that is aimed at, and when it is `ready` (B,). `berth`: how much
        farther than usual to stay from the walls, as far as the gap allows.
        """
        axis, other = self.axis, 1 - self.axis
        spare = min(berth, max(0.0, (self.gap[1] - self.gap[0]) / 2 - self.margin))
        low, high = self.gap[0] + spare, self.gap[1] - spare
        start = self.start - berth
        via = destination.copy()
        before = self.before(position)
        # Aim inside of what opens the way, as in all gates here: a small error must not wait before it for ever.
        margin = min(self.margin, (high - low) / 2)
        inside = np.clip(destination[:, other], low + margin, high - margin)
        via[:, other] = blend(before, destination[:, other], inside)
        via[:, 2] = blend(before, destination[:, 2], np.maximum(destination[:, 2], self.height))
        in_gap = gate(position[:, other] - low, self.width / 2) * gate(high - position[:, other], self.width / 2)
        high_enough = gate(position[:, 2] - (via[:, 2] - room), self.width)
        inside_already = gate(position[:, axis] - start - 0.03, self.width / 2)
        go = (1 - (1 - in_gap) * (1 - inside_already)) * high_enough * ready
        beyond = np.maximum(destination[:, axis], self.end + 0.02)
        via[:, axis] = blend(before, destination[:, axis], blend(go, np.full(len(via), start), beyond))
        return via


APPROACH: dict[str, Passage] = {
    "ObjectWall": Passage(axis=0, start=-0.025, end=0.085, gap=(-0.095, 0.30), height=0.955),
    "ObjectDoor": Passage(axis=0, start=-0.014, end=0.065, gap=(-0.305, -0.235), height=0.94),
}
"""Obstacles between the start and the object, for the tool."""

BETWEEN_BINS = Passage(axis=1, start=-0.10, end=0.03, gap=(-1.0, 1.0))
"""The bins have low walls, which a held object passes high enough."""

CARRY: dict[str, Passage] = {
    # Between the goal wall and the far wall of the second bin, which for Push begins earlier than that.
    "GoalWall": Passage(axis=1, start=-0.11, end=0.045, gap=(0.175, 0.235)),
}
"""Obstacles between the object and its goal, for the held object; with any other it goes as `BETWEEN_BINS` says."""


def expect_way(task: CompoSuiteTask) -> None:
    """Raises `TaskError` for an obstacle round which no way is described."""
    if task.obstacle != "None" and task.obstacle not in {**APPROACH, **CARRY}:
        raise TaskError(
            f"{task}: envs/experts/paths.py has no way round the obstacle {task.obstacle!r}; it goes into APPROACH "
            "(between robot and object) or CARRY (between object and goal)"
        )


SHELF = Passage(axis=1, start=0.05, end=0.16, gap=(-0.07, 0.27))
"""The shelf's opening, for the held object."""
