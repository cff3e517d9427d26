"""The four arenas: two bins, and for some objectives a shelf or a trash can.

Positions and sizes are those of the CompoSuite benchmark, in metres; sizes are half-extents.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from envs.composuite.mjcf import body, element, geom, visual_geom

BIN1_POS = (0.1, -0.26, 0.8)
BIN2_HALF = (0.2, 0.175)
TABLE_TOP = 0.82
TRASHCAN_Z = 0.825

_COLLISION_RGBA = (0.5, 0.5, 0, 1)
_WALLS = (
    ("wall_leftcorner_visual", (-1.25, 2.25, 1.5), (0.6532815, 0.6532815, 0.2705981, 0.2705981), (1.06, 1.5, 0.01)),
    ("wall_rightcorner_visual", (-1.25, -2.25, 1.5), (0.6532815, 0.6532815, -0.2705981, -0.2705981), (1.06, 1.5, 0.01)),
    ("wall_left_visual", (1.25, 3, 1.5), (0.7071, 0.7071, 0, 0), (1.75, 1.5, 0.01)),
    ("wall_right_visual", (1.25, -3, 1.5), (0.7071, -0.7071, 0, 0), (1.75, 1.5, 0.01)),
    ("wall_rear_visual", (-2, 0, 1.5), (0.5, 0.5, 0.5, 0.5), (1.5, 1.5, 0.01)),
    ("wall_front_visual", (3, 0, 1.5), (0.5, 0.5, -0.5, -0.5), (3, 1.5, 0.01)),
)
_CAMERAS = (
    ("frontview", (1.6, 0, 1.45), (0.56, 0.43, 0.43, 0.56)),
    ("birdview", (-0.2, 0, 3.0), (0.7071, 0, 0, 0.7071)),
    ("agentview", (0.5, 0, 1.35), (0.653, 0.271, 0.271, 0.653)),
    (
        "sideview",
        (-0.05651774593317116, 1.2761224129427358, 1.4879572214102434),
        (0.009905065491771751, 0.006877963156909582, 0.5912228352893879, 0.806418094001364),
    ),
)
# Plain colours stand in for the benchmark's wood and plaster pictures: no observation depends on them, and a compiled
# model without textures is small enough to cache.
_MATERIALS = (
    ("floorplane", (0.72, 0.72, 0.74, 1)),
    ("table_legs_metal", (0.55, 0.57, 0.6, 1)),
    ("walls_mat", (0.86, 0.86, 0.84, 1)),
    ("light-wood", (0.80, 0.66, 0.46, 1)),
    ("dark-wood", (0.48, 0.33, 0.22, 1)),
)


def bin2_pos(objective: str) -> tuple[float, float, float]:
    """Centre of the target bin's floor; Push moves it next to the first bin."""
    return (0.1, 0.13, 0.8) if objective == "Push" else (0.1, 0.18, 0.8)


def shelf_pos() -> tuple[float, float, float]:
    """The shelf's foot, 15 cm behind the middle of the target bin."""
    return (0.1, 0.33, 0.8)


def trashcan_pos() -> tuple[float, float, float]:
    x, y, _ = bin2_pos("Trashcan")
    return (x, y, TRASHCAN_Z)


def _solid(
    size: Sequence[float],
    pos: Sequence[float],
    material: str | None,
    names: tuple[str | None, str | None] = (None, None),
    **visual: object,
) -> list[ET.Element]:
    """A colliding box and its visual twin."""
    return [
        geom("box", size, pos, name=names[0], group=0, friction=(1, 0.005, 0.0001), rgba=_COLLISION_RGBA),
        visual_geom("box", size, pos, name=names[1], material=material, **visual),
    ]


def _legs(prefix: str, x: float, y: float) -> list[ET.Element]:
    corners = ((x, y), (-x, y), (-x, -y), (x, -y))
    return [
        visual_geom(
            "cylinder", (0.01, 0.4), (cx, cy, -0.4), name=f"{prefix}_leg{i}_visual", material="table_legs_metal"
        )
        for i, (cx, cy) in enumerate(corners, start=1)
    ]


def _bin1(objective: str) -> ET.Element:
    parts = _solid((0.2, 0.25, 0.02), (0, 0, 0), "light-wood", ("floor1", None))
    walls = [
        ("bin1_left_wall", (0.21, 0.01, 0.01), (0, 0.25, 0.03)),
        ("bin1_right_wall", (0.21, 0.01, 0.01), (0, -0.25, 0.03)),
        ("bin1_front_wall", (0.01, 0.25, 0.01), (0.2, 0, 0.03)),
        ("bin1_rear_wall", (0.01, 0.25, 0.01), (-0.2, 0, 0.03)),
    ]
    for name, size, pos in walls[1:] if objective == "Push" else walls:
        parts += _solid(size, pos, "light-wood", (None, name))
    return body("bin1", BIN1_POS, *parts, *_legs("bin1", 0.15, 0.2))


def _bin2(objective: str) -> ET.Element:
    parts = _solid((0.2, 0.175, 0.02), (0, 0, 0), "dark-wood", ("floor2", None))
    walls = [
        ((0.2, 0.01, 0.05), (0, 0.175, 0.05)),
        ((0.21, 0.01, 0.05), (0, -0.175, 0.05)),
        ((0.01, 0.175, 0.05), (0.2, 0, 0.05)),
        ((0.01, 0.175, 0.05), (-0.2, 0, 0.05)),
    ]
    if objective == "Push":
        del walls[1]
    for size, pos in walls:
        parts += _solid(size, pos, "dark-wood")
    return body("bin2", bin2_pos(objective), *parts, *_legs("bin2", 0.15, 0.1))


def _shelf() -> ET.Element:
    # The benchmark's drawn blocks of the shelf collide as well (conaffinity 1); that doubles contacts and is physics.
    return body(
        "shelf",
        shelf_pos(),
        *_solid((0.2, 0.01, 0.15), (0, 0, 0.15), "dark-wood", ("shelf_collision", "shelf_visual")),
        *_solid(
            (0.2, 0.1, 0.0725),
            (0, -0.09, 0.0725),
            "dark-wood",
            ("shelf_bottom_collision", "shelf_bottom_visual"),
            conaffinity=1,
        ),
        *_solid(
            (0.2, 0.1, 0.05), (0, -0.09, 0.35), "dark-wood", ("shelf_top_collision", "shelf_top_visual"), conaffinity=1
        ),
    )


def _trashcan() -> ET.Element:
    # Two names are misspelt in the benchmark; they are kept so that models compare equal name by name.
    sides = [
        ("trashcan1_collision", (0.08, 0.005, 0.08), (0, 0.08, 0.0805)),
        ("trashcan2_collsion", (0.005, 0.08, 0.08), (-0.08, 0, 0.0805)),
        ("trashcan3_collsion", (0.005, 0.08, 0.08), (0.08, 0, 0.0805)),
        ("trashcan4_collision", (0.08, 0.005, 0.08), (0, -0.08, 0.0805)),
        ("trashcan5_collision", (0.08, 0.08, 0.005), (0, 0, 0)),
    ]
    parts: list[ET.Element] = []
    for i, (name, size, pos) in enumerate(sides, start=1):
        parts += _solid(size, pos, None, (name, f"trashcan{i}_visual"), rgba=(0.1, 0.1, 0.5, 0.5))
    return body("trashcan", trashcan_pos(), *parts)


def assets() -> list[ET.Element]:
    sky = element("texture", builtin="gradient", type="skybox", width=256, height=256)
    sky.set("rgb1", ".9 .9 1.")
    sky.set("rgb2", ".2 .3 .4")
    return [sky, *(element("material", name=name, rgba=rgba, specular=0.2) for name, rgba in _MATERIALS)]


def worldbody(objective: str) -> list[ET.Element]:
    """Everything of the world but robot, object and obstacle, in the order that fixes contact order."""
    floor = geom("plane", (3, 3, 0.125), name="floor", condim=3, group=0, material="floorplane")
    walls = [
        visual_geom("box", size, pos, name=name, quat=quat, material="walls_mat") for name, pos, quat, size in _WALLS
    ]
    lights = [
        element(
            "light", pos=pos, dir=(-0.2, -0.2, -1), specular=(0.3, 0.3, 0.3), directional="true", castshadow="false"
        )
        for pos in ((1.0, 1.0, 1.5), (-3.0, 1.0, 1.5))
    ]
    cameras = [element("camera", name=name, mode="fixed", pos=pos, quat=quat) for name, pos, quat in _CAMERAS]
    fixtures = {"Shelf": [_shelf], "Trashcan": [_trashcan]}.get(objective, [])
    bodies = [_bin1(objective), _bin2(objective), *(build() for build in fixtures)]
    return [floor, *walls, *lights, *cameras, *bodies]
