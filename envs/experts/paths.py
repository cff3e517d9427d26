"""Which way round or over each obstacle (m, world frame)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Route:
    """A ridge that lifts the tool's path near an obstacle: `top` where the tool must be over it without load.

    The ridge is along `axis` (0: x, 1: y) at `centre`, flat for `half` metres to both sides and falling
    off over `slope`.
    """

    axis: int = 0
    centre: float = 0.0
    half: float = 0.0
    slope: float = 0.01
    top: float = 0.0

    def height(self, tool: np.ndarray, *, load: float) -> np.ndarray:
        """(B,) least tool height at the tool's place, 0 away from the obstacle."""
        if not self.top:
            return np.zeros(len(tool))
        away = np.abs(tool[:, self.axis] - self.centre)
        return 0.5 * (1 + np.tanh((self.half - away) / self.slope)) * (self.top + load)


ROUTES = {
    "None": Route(),
    "ObjectWall": Route(axis=0, centre=0.009, half=0.06, slope=0.012, top=1.14),
    "ObjectDoor": Route(axis=0, centre=0.009, half=0.06, slope=0.012, top=1.14),
    "GoalWall": Route(axis=1, centre=-0.01, half=0.08, slope=0.012, top=1.20),
}
