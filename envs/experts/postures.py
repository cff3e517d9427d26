"""How an arm holds itself so that its wrist and forearm stay clear of walls that the hand passes. Angles in rad."""

from __future__ import annotations

from dataclasses import dataclass

from offline_compositional_rl_datasets.composuite import CompoSuiteTask


@dataclass(frozen=True)
class Posture:
    """A change of the hand's pose: `tilt`, `roll` and `yaw` are added, `softness` multiplies how readily it leans.

    `berth`: how much farther (m) than usual the hand stays from walls before it passes them with empty fingers, or
    goes on behind them with an object. `lead`: by how much the joints' commands may exceed their limit before they
    are scaled as a whole: joints with a shorter way than the longest are then ahead of it, which is quick but bends
    the way.
    """

    tilt: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    softness: float = 1.0
    berth: float = 0.0
    lead: float = 2.0


USUAL = Posture()

_BESIDE_WALLS = {
    ("IIWA", "GoalWall", "Plate"): Posture(roll=0.1),
    ("Panda", "GoalWall", "Plate"): Posture(tilt=-0.6, roll=0.12, yaw=-0.4, softness=0.3, lead=1.2),
    ("Panda", "ObjectWall"): Posture(tilt=-0.3, softness=0.2, berth=0.04, lead=1.2),
    ("Panda", "ObjectDoor"): Posture(tilt=-0.3, softness=0.2, berth=0.03, lead=1.2),
    ("Panda", "ObjectWall", "Plate"): Posture(tilt=-0.35, softness=0.1, berth=0.04, lead=1.2),
    ("Panda", "ObjectDoor", "Plate"): Posture(tilt=-0.3, softness=0.1, berth=0.03, lead=1.2),
    ("Panda", "GoalWall"): Posture(tilt=-0.2, softness=0.1, lead=1.2),
    ("Panda", "GoalWall", "Dumbbell"): Posture(tilt=-0.2, roll=0.15, softness=0.1, lead=1.2),
    ("IIWA", "ObjectDoor", "Box"): Posture(tilt=-0.2),
    ("IIWA", "ObjectDoor", "Hollowbox"): Posture(tilt=-0.2),
    ("Kinova3", "ObjectDoor"): Posture(berth=0.03),
}
"""By robot and obstacle, or also by object. Panda's wrist is wide and sits behind the hand, and where it knocks over a
dumbbell or a plate beside the goal wall, its forearm comes down on that unless the hand rolls or turns away. IIWA's
forearm comes down on a post of the door. Kinova3's wrist is wide. A plate lies beside a post."""

_ROUND_THE_GOAL_WALL = {
    ("Jaco",): Posture(softness=0.2, lead=1.0),
    ("IIWA", "Plate"): Posture(lead=1.0),
    ("Panda",): Posture(tilt=-0.35, yaw=-0.7, softness=3.0, lead=1.0),
    ("Panda", "Dumbbell"): Posture(tilt=-0.35, roll=-0.15, yaw=-0.7, softness=3.0, lead=1.0),
    ("Panda", "Plate"): Posture(tilt=0.05, roll=-0.12, yaw=-0.3, lead=1.0),
}
"""By robot, or also by object, for a hand that must stay low: it points ahead, so that the wrist comes after it, not
beside it, and takes back the roll of its object's posture above. IIWA swings a plate up to where its episode would
end unless it goes straight."""


def beside_walls(task: CompoSuiteTask) -> Posture:
    """Of all poses of a task; an object's own is left out where a hand that carries low does not reckon with it."""
    usual = _BESIDE_WALLS.get((task.robot, task.obstacle), USUAL)
    if round_the_goal_wall(task) is not USUAL and (task.robot, task.object) not in _ROUND_THE_GOAL_WALL:
        return usual
    return _BESIDE_WALLS.get((task.robot, task.obstacle, task.object), usual)


def round_the_goal_wall(task: CompoSuiteTask) -> Posture:
    """Of the poses in which an object is carried."""
    if (task.obstacle, task.objective) != ("GoalWall", "Push"):
        return USUAL
    usual = _ROUND_THE_GOAL_WALL.get((task.robot,), USUAL)
    return _ROUND_THE_GOAL_WALL.get((task.robot, task.object), usual)
