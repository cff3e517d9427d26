"""The three obstacles: static boxes. Sizes are half-extents, positions in the obstacle's body, in metres."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from envs.composuite.arenas import BIN1_POS
from envs.composuite.mjcf import body, element, geom, marker_site, visual_geom

_QUARTER_TURN = (0.7071067811865476, 0.0, 0.0, 0.7071067811865475)
_COLLISION_RGBA = (0.5, 0, 0, 1)


@dataclass(frozen=True)
class ObstacleSpec:
    """Walls (name, half size, position) and the pose at which every task places them.

    The object starts farther from the robot where the obstacle is `near_object`, between the two, and in any case so
    far from the obstacle's middle that circles of its own and of the obstacle's `radius` (m) do not meet.
    """

    walls: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float]], ...]
    pos: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    radius: float
    framed: bool = False
    near_object: bool = False


_NEAR_OBJECT_POS = (BIN1_POS[0] - 0.2 / 2.2, BIN1_POS[1], 0.925)

OBSTACLE_SPECS = {
    "ObjectWall": ObstacleSpec(
        (("wall", (0.1, 0.005, 0.125), (0, 0, 0.02)),), _NEAR_OBJECT_POS, _QUARTER_TURN, radius=0.1, near_object=True
    ),
    "ObjectDoor": ObstacleSpec(
        (
            ("wall_l", (0.07, 0.005, 0.125), (-0.16, 0, 0.02)),
            ("wall_r", (0.07, 0.005, 0.125), (0.16, 0, 0.02)),
        ),
        _NEAR_OBJECT_POS,
        _QUARTER_TURN,
        radius=0.07,
        framed=True,
        near_object=True,
    ),
    "GoalWall": ObstacleSpec(
        (("wall", (0.105, 0.005, 0.14), (-0.095, 0, 0.02)),),
        (0.1, BIN1_POS[1] + 0.25, 0.8 + 0.14),
        (1.0, 0.0, 0.0, 0.0),
        radius=0.08,
    ),
}


def obstacle_body(name: str) -> ET.Element:
    spec = OBSTACLE_SPECS[name]
    prefix = f"Obstacle{name}"
    solid = [
        geom("box", size, pos, name=f"{prefix}_{part}", group=0, mass=1000, rgba=_COLLISION_RGBA)
        for part, size, pos in spec.walls
    ]
    drawn = [
        visual_geom("box", size, pos, name=f"{prefix}_{part}_visual", mass=1e-8, material=f"{prefix}_BrickWall")
        for part, size, pos in spec.walls
    ]
    site = marker_site(f"{prefix}_default_site")
    if spec.framed:
        return body(f"{prefix}_main", None, body(f"{prefix}_frame", None, *solid, *drawn), site)
    return body(f"{prefix}_main", None, *solid, *drawn, site)


def assets(name: str) -> list[ET.Element]:
    return [element("material", name=f"Obstacle{name}_BrickWall", rgba=(0.62, 0.27, 0.20, 1), specular=0.1)]
