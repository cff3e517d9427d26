"""What each objective wants of a held object. Lengths in m, angles in rad, world frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.experts.gates import blend, gate, near
from envs.experts.paths import SHELF, Passage


@dataclass(frozen=True)
class Aim:
    """Where a held object goes, how high on the way, how the hand is held, and when it lets go.

    `place`: the object's end, relative to the goal. `travel`: height of the object's lowest point on the way (0: it
    stays at the height of its end); below it by more than `rise` it waits before it passes from bin to bin. `funnel`:
    horizontal distance to the end at which it comes down (0: it stays up). `turn_at`:
    horizontal distance at which the hand takes the `tilt`, `roll` and `softness` of the end. `let_go`: horizontal distance at
    which the object is dropped (0: it is held for good); then the tool waits at the height `rest`.
    """

    place: tuple[float, float, float]
    travel: float = 0.0
    rise: float = 0.06
    funnel: float = 0.1
    tilt: float = 0.05
    roll: float = 0.0
    softness: float = 1.0
    turn_at: float = 0.3
    let_go: float = 0.0
    rest: float = 0.0
    passage: Passage | None = None
    pointing: float = 0.0

    def end(self, goal: np.ndarray) -> np.ndarray:
        """(B, 3) where the object should end."""
        return goal + np.array(self.place)

    def height(self, end: np.ndarray, away: np.ndarray, depth: float) -> np.ndarray:
        """(B,) height of an object's origin at the distance `away` (B,) from its end."""
        if not self.travel:
            return end[:, 2]
        high = np.full(len(end), self.travel + depth)
        return blend(near(away, self.funnel), high, end[:, 2]) if self.funnel else high

    def turned(self, away: np.ndarray) -> np.ndarray:
        """(B,) 0 the hand's pose on the way .. 1 that of the end."""
        return near(away, self.turn_at)

    def release(self, away: np.ndarray) -> np.ndarray:
        """(B,) 0 hold .. 1 let go."""
        return gate(self.let_go - away, 0.005) if self.let_go else np.zeros(len(away))


AIMS = {
    "PickPlace": Aim(place=(0.08, -0.045, 0.035), travel=0.93, funnel=0.09),
    "Push": Aim(place=(0.0, 0.0, 0.045), rise=0.014, tilt=0.0, softness=0.05, turn_at=0.4),
    "Shelf": Aim(
        place=(0.12, 0.0, 0.0),
        travel=0.97,
        funnel=0.0,
        tilt=0.15,
        roll=1.0,
        softness=0.1,
        turn_at=0.6,
        passage=SHELF,
        pointing=0.63,
    ),
    "Trashcan": Aim(place=(0.03, -0.02, 0.17), travel=1.005, funnel=0.05, let_go=0.045, rest=1.12),
}
