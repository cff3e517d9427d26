"""How each object is grasped from above. Lengths in m, in the world's axes (objects start upright and unturned)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grasp:
    """Tool point relative to the object's origin, tolerances of "at the grasp point", and the approach's funnel.

    `held_opening`: below this finger opening, something of the object's width is between the pads.
    `load`: how far the object hangs below the tool, to be added to a travel height.
    """

    offset: np.ndarray
    reach_xy: float
    reach_z: float
    held_opening: float
    clearance: float
    funnel: float
    load: float


GRASPS = {
    "Box": Grasp(np.array([0.0, 0.0, 0.006]), 0.024, 0.026, 0.009, 0.08, 0.025, 0.05),
    # By the wall at +y: one finger inside, one outside.
    "Hollowbox": Grasp(np.array([0.0, 0.030, 0.045]), 0.014, 0.014, -0.016, 0.08, 0.018, 0.06),
}
