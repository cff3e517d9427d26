"""How each object is grasped. Lengths in m, angles in rad; objects start upright and unturned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """A point relative to the object's origin (world's axes), and how the tool comes to it.

    It comes in along `along` (a direction; None: the hand's axis), from `clearance` away unless it is within `funnel`
    of that line. It comes down to the start of a way along the table once it is within `descent` of it (None: before it
    in any place) in the plane. `rim`: how far the point lies farther up a leaning object's side. `tilt`: how far the
    hand leans back, `roll`: and to the side (for a rim at +y; mirrored at -y), `softness`: how readily it leans
    otherwise where that is a shorter way for the arm. `weights`: how much it counts to be off the line along x, y and z
    (x less for a grasp, as the fingers close along y).
    """

    point: tuple[float, float, float]
    along: tuple[float, float, float] | None = None
    clearance: float = 0.06
    funnel: float = 0.025
    descent: float | None = None
    rim: float = 0.0
    tilt: float = 0.3
    roll: float = 0.0
    softness: float = 1.0
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Grasp:
    """Where and how an object is gripped, and when it counts as held.

    `reach`: how far to the side, and back along the way, the tool may be from its point when the fingers close.
    `topple`: a way that pushes an upright object over first, until its axis leans so far that its vertical part is
    below `tips`, give or take `tips_width`; only then do the fingers close.
    `lengthwise`: the hand turns to the axis of an object that was pushed over.
    `held_offset`, `keep`: with closed fingers (their opening below `held_opening`) the object is held while the tool
    has it within `keep` of `in_hand` (in the hand's axes). `depth`: how far a held object may reach below its origin.
    `slack`: share of the room for letting go that a long object leaves.
    `behind`: how much farther the hand goes on behind a wall before it turns to the object.
    `turn`: share of its usual yaw that the hand has at the object: less where the fingers must be square to a wall.
    """

    way: Way
    reach: tuple[float, float]
    in_hand: tuple[float, float, float]
    held_opening: float
    keep: float
    depth: float
    topple: Way | None = None
    tips: float = 0.5
    tips_width: float = 0.06
    lengthwise: bool = False
    slack: float = 1.0
    behind: float = 0.0
    turn: float = 1.0


GRASPS = {
    "Box": Grasp(
        way=Way((0.0, 0.0, 0.010), tilt=0.05, funnel=0.018, weights=(0.5, 1.0, 1.0)),
        reach=(0.022, 0.022),
        in_hand=(0.0, 0.0, 0.012),
        held_opening=0.010,
        keep=0.05,
        depth=0.035,
    ),
    # It stands upright, and the discs at its ends are too wide for the fingers: one finger behind the upper disc knocks
    # it over, at an angle, as there is no room straight behind it where a wall stands; then the bar is gripped.
    "Dumbbell": Grasp(
        topple=Way(
            (0.06, -0.03, 0.042),
            along=(0.75, -0.66, 0.0),
            clearance=0.165,
            funnel=0.03,
            tilt=0.05,
            softness=1.0,
            weights=(1.0, 1.0, 1.8),
        ),
        way=Way((0.0, 0.0, 0.004), funnel=0.03, clearance=0.05, tilt=0.15, weights=(0.7, 1.0, 1.0)),
        reach=(0.016, 0.016),
        in_hand=(0.0, 0.0, 0.0),
        held_opening=0.012,
        keep=0.045,
        depth=0.055,  # the discs' radius, and 1 cm by which an end may hang
        lengthwise=True,
        slack=0.4,
    ),
    # The finger at -y presses the disc down beside its stem, so that it tips; then the rim that came up is gripped.
    "Plate": Grasp(
        topple=Way(
            (-0.01, -0.01, 0.012),
            along=(0.0, -1.0, -0.3),
            clearance=0.074,
            funnel=0.02,
            descent=0.015,
            tilt=0.1,
            roll=-0.4,
            softness=0.3,
            weights=(0.8, 1.0, 1.0),
        ),
        way=Way((-0.01, 0.0, 0.013), rim=0.036, tilt=0.1, roll=-0.25, softness=0.3),
        reach=(0.02, 0.016),
        tips=0.965,
        tips_width=0.006,
        behind=0.015,
        in_hand=(0.0, -0.005, 0.05),
        held_opening=0.010,
        keep=0.05,
        depth=0.056,
    ),
    # By the wall at -y, so that it leads the hand to its goal: one finger inside, one outside.
    "Hollowbox": Grasp(
        way=Way((0.0, -0.030, 0.045), funnel=0.014, tilt=0.2, softness=0.4),
        reach=(0.014, 0.016),
        in_hand=(0.0, -0.030, 0.047),
        held_opening=-0.012,
        keep=0.04,
        depth=0.035,
        turn=0.3,
    ),
}
