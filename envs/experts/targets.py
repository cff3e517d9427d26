"""What each objective wants of a held object. Lengths in m, angles in rad, world frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.experts.gates import blend, gate, near
from envs.experts.paths import SHELF, Passage
from offline_compositional_rl_datasets.composuite import CompoSuiteTask, described


@dataclass(frozen=True)
class Aim:
    """Where a held object goes, how high on the way, how the hand is held, and when it lets go.

    `place`: the object's end in the plane, relative to the goal. `low`: height of the object's lowest point there,
    but its origin stays below `ceiling`. `travel`: height of its lowest point on the way (0: that of the end); below
    it by more than `rise` it waits before it passes from bin to bin. `funnel`: horizontal distance to the end at which
    it comes down. `turn_at`: horizontal distance at which the hand takes the `tilt`, `roll` and `softness` of the end,
    and turns `straight` ahead: with a yaw, a hand that rolls to the side tilts what it holds. `let_go`: horizontal
    distance at which the object is dropped (0: it is held for good); then the tool waits at the height `rest`.
    `passage`: what it goes through at the end, once the fingers point so far to +y (`pointing`).
    """

    place: tuple[float, float]
    low: float
    ceiling: float = 2.0
    travel: float = 0.0
    rise: float = 0.06
    funnel: float = 0.1
    tilt: float = 0.05
    roll: float = 0.0
    softness: float = 1.0
    straight: bool = False
    turn_at: float = 0.3
    let_go: float = 0.0
    rest: float = 0.0
    passage: Passage | None = None
    pointing: float = 0.0

    def end(self, goal: np.ndarray, depth: float, slack: float) -> np.ndarray:
        """(B, 3) where an object that reaches `depth` below its origin, and leaves a share `slack` of room, ends."""
        low = np.full((len(goal), 1), min(self.low + depth, self.ceiling))
        place = np.array(self.place) * (slack if self.let_go else 1.0)
        return np.concatenate([goal[:, :2] + place, low], axis=1)

    def height(self, end: np.ndarray, away: np.ndarray, depth: float) -> np.ndarray:
        """(B,) height of the object's origin at the distance `away` (B,) from its end."""
        if not self.travel:
            return end[:, 2]
        return blend(near(away, self.funnel), np.full(len(end), self.travel + depth), end[:, 2])

    def turned(self, away: np.ndarray) -> np.ndarray:
        """(B,) 0 the hand's pose on the way .. 1 that of the end."""
        return near(away, self.turn_at)

    def release(self, end: np.ndarray, obj: np.ndarray, slack: float) -> np.ndarray:
        """(B,) 0 hold .. 1 let go an object at `obj` (B, 3): near its end, and for good once it has dropped there."""
        if not self.let_go:
            return np.zeros(len(obj))
        away = np.linalg.norm(end[:, :2] - obj[:, :2], axis=1)
        dropped = gate(end[:, 2] - obj[:, 2] - 0.06, 0.01) * gate(2 * self.let_go - away, 0.005)
        let_go: np.ndarray = 1 - (1 - gate(self.let_go * slack - away, 0.005)) * (1 - dropped)
        return let_go


AIMS = {
    "PickPlace": Aim(place=(0.08, -0.045), low=0.83, travel=0.93, funnel=0.09),
    # Higher than the ceiling that the objective sets, its episode would end.
    "Push": Aim(place=(0.0, 0.0), low=0.84, ceiling=0.88, rise=0.02, tilt=0.0, softness=0.05, turn_at=0.4),
    "Shelf": Aim(
        place=(0.12, 0.01),
        low=0.965,
        tilt=0.15,
        roll=1.0,
        softness=0.1,
        straight=True,
        turn_at=0.6,
        passage=SHELF,
        pointing=0.63,
    ),
    "Trashcan": Aim(place=(0.03, -0.02), low=1.01, let_go=0.045, rest=1.12),
}

_PLACES = {"IIWA_Dumbbell_GoalWall_Shelf": (0.15, 0.01)}
"""IIWA's hand, thrown off its path, catches on the goal wall 6 cm before the end unless it keeps to the side."""


def aim_of(task: CompoSuiteTask) -> Aim:
    """The objective's aim, at a place of the task's own where it has one."""
    aim = described(AIMS, task, "objective", "envs/experts/targets.py")
    return replace(aim, place=_PLACES.get(task.name, aim.place))
