"""What each objective wants of a held object. Lengths in m, world frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Aim:
    """`travel`: tool height on the way. `place`: height of the object over its goal at the end.
    `let_go`: horizontal distance to the goal at which the object is dropped (0: it is held for good)."""

    travel: float
    place: float
    funnel: float = 0.05
    let_go: float = 0.0
    on_table: bool = False

    def height(self, goal: np.ndarray, to_goal: np.ndarray, hang: np.ndarray) -> np.ndarray:
        """(B,) tool height for an object at distance `to_goal` (B,) from its goal."""
        end = goal[:, 2] + self.place + hang[:, 2]
        if self.on_table:
            return end
        return end + (self.travel - end) * (1 - np.exp(-((to_goal / self.funnel) ** 2)))

    def release(self, to_goal: np.ndarray) -> np.ndarray:
        """(B,) 0 hold .. 1 let go."""
        if not self.let_go:
            return np.zeros(len(to_goal))
        return 0.5 * (1 + np.tanh((self.let_go - to_goal) / 0.010))

    def rest(self, goal: np.ndarray) -> np.ndarray:
        """(B, 3) where the tool waits after letting go."""
        return np.concatenate([goal[:, :2], np.full((len(goal), 1), self.travel)], axis=1)

    def detour(self, obstacle: str, obj: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """(B, 3) where the object goes next: the goal, or for a push past GoalWall first the wall's free end."""
        if not self.on_table or obstacle != "GoalWall":
            return goal
        target = goal.copy()
        before = 0.5 * (1 - np.tanh((obj[:, 1] - 0.05) / 0.02))
        free = 0.5 * (1 + np.tanh((obj[:, 0] - 0.19) / 0.012))
        target[:, 0] += before * (0.215 - goal[:, 0])
        target[:, 1] = obj[:, 1] + (1 - before * (1 - free)) * (goal[:, 1] - obj[:, 1])
        return target


AIMS = {
    "PickPlace": Aim(travel=1.06, place=0.0, funnel=0.10),
    "Push": Aim(travel=0.0, place=0.02, on_table=True),
    "Trashcan": Aim(travel=1.12, place=0.20, funnel=0.05, let_go=0.045),
}
