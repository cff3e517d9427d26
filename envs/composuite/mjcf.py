"""Small helpers that write MJCF elements; sizes are half-extents in metres, quaternions (w, x, y, z)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

COLLISION_GROUP = 0
VISUAL_GROUP = 1


def numbers(values: Sequence[float]) -> str:
    """Numbers as MJCF writes them, at full precision."""
    return " ".join(repr(float(value)) for value in values)


def element(tag: str, **attributes: object) -> ET.Element:
    """An element whose attributes may be strings, numbers or sequences; None leaves one out."""
    node = ET.Element(tag)
    for key, value in attributes.items():
        if value is None:
            continue
        if isinstance(value, str):
            text = value
        elif isinstance(value, Sequence) or hasattr(value, "__len__"):
            text = numbers(value)
        else:
            text = repr(value)
        node.set(key, text)
    return node


def geom(shape: str, size: Sequence[float], pos: Sequence[float] = (0, 0, 0), **attributes: object) -> ET.Element:
    return element("geom", type=shape, size=size, pos=pos, **attributes)


def visual_geom(
    shape: str, size: Sequence[float], pos: Sequence[float] = (0, 0, 0), **attributes: object
) -> ET.Element:
    """A geom that is only drawn: it neither collides nor (being outside group 0) has mass."""
    attributes = {"contype": 0, "conaffinity": 0, "group": VISUAL_GROUP, **attributes}
    return geom(shape, size, pos, **attributes)


def body(
    name: str, pos: Sequence[float] | None, *children: ET.Element, quat: Sequence[float] | None = None
) -> ET.Element:
    node = element("body", name=name, pos=pos, quat=quat)
    node.extend(children)
    return node


def marker_site(name: str) -> ET.Element:
    """The invisible site that robosuite gives each object at its origin."""
    return element("site", name=name, pos=(0, 0, 0), size=(0.002, 0.002, 0.002), rgba=(1, 0, 0, 0))
