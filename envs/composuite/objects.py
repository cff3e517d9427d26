"""The four objects and their goal twins. Sizes are half-extents (cylinder: radius, half-length) in metres."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from envs.composuite.mjcf import body, element, geom, marker_site, visual_geom

_STICKY = (1, 1, 1)
_SMOOTH = (1, 0.005, 0.0001)
_COLLISION_RGBA = (0.5, 0, 0, 1)
_TWIN_RGBA = (0.8, 0.8, 0.8, 0.3)


@dataclass(frozen=True)
class Part:
    """A convex piece of an object; `twin_*` where the goal twin's shape differs."""

    shape: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0, 0, 0)
    friction: tuple[float, float, float] = _STICKY
    twin_size: tuple[float, ...] | None = None
    twin_pos: tuple[float, float, float] | None = None
    # The benchmark's second geom of each part: drawn, 1 g heavy; the Hollowbox' bottom has a massless one.
    massless_copy_size: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ObjectSpec:
    """An object's parts and the measures that the placement sampler uses (m)."""

    parts: tuple[Part, ...]
    bottom: float
    top: float
    radius: float
    rigid_contact: bool = False


OBJECT_SPECS = {
    "Box": ObjectSpec((Part("box", (0.02, 0.02, 0.03)),), bottom=-0.03, top=0.03, radius=0.02),
    "Dumbbell": ObjectSpec(
        (
            Part("cylinder", (0.02, 0.045)),
            Part("cylinder", (0.045, 0.0035), (0, 0, 0.045), twin_size=(0.05, 0.0035)),
            Part("cylinder", (0.045, 0.0035), (0, 0, -0.045), twin_size=(0.05, 0.0035)),
        ),
        bottom=-0.052,
        top=0.052,
        radius=0.045,
        rigid_contact=True,
    ),
    "Plate": ObjectSpec(
        (
            Part("box", (0.01, 0.01, 0.02), friction=_SMOOTH, twin_size=(0.01, 0.01, 0.016)),
            Part("cylinder", (0.06, 0.007), (0, 0, 0.02), twin_size=(0.06, 0.005), twin_pos=(0, 0, 0.016)),
        ),
        bottom=-0.02,
        top=0.034,
        radius=0.06,
        rigid_contact=True,
    ),
    "Hollowbox": ObjectSpec(
        (
            Part("box", (0.03, 0.03, 0.008), massless_copy_size=(0.03, 0.03, 0.004)),
            Part("box", (0.03, 0.008, 0.03), (0, 0.03, 0.03)),
            Part("box", (0.008, 0.03, 0.03), (0.03, 0, 0.03)),
            Part("box", (0.03, 0.008, 0.03), (0, -0.03, 0.03)),
            Part("box", (0.008, 0.03, 0.03), (-0.03, 0, 0.03)),
        ),
        bottom=-0.008,
        top=0.068,
        radius=0.038,
    ),
}


def object_joint(name: str) -> str:
    return f"{name}_joint0"


def object_body(name: str) -> ET.Element:
    """The free body of an object: per part a colliding geom and a drawn one of 1 g, then robosuite's visual copies."""
    spec = OBJECT_SPECS[name]
    contact: dict[str, object] = {}
    if spec.rigid_contact:
        contact = {"condim": 4, "solref": (0.001, 1), "solimp": (0.99, 0.99, 0.01)}
    material = f"{name}_sceramic"
    solids, copies = [], []
    for i, part in enumerate(spec.parts):
        first, second = f"{name}_g{2 * i}", f"{name}_g{2 * i + 1}"
        friction = {"friction": part.friction}
        solids.append(
            geom(
                part.shape,
                part.size,
                part.pos,
                name=first,
                group=0,
                density=1000,
                rgba=_COLLISION_RGBA,
                **friction,
                **contact,
            )
        )
        copies.append(
            visual_geom(part.shape, part.size, part.pos, name=f"{first}_visual", mass=1e-8, **friction, **contact)
        )
        if part.massless_copy_size is not None:
            solids.append(
                visual_geom(part.shape, part.massless_copy_size, part.pos, name=second, material=material, **contact)
            )
            continue
        dead = {"contype": 0, "conaffinity": 0, "group": 0, "mass": 0.001}
        solids.append(geom(part.shape, part.size, part.pos, name=second, rgba=_COLLISION_RGBA, **dead, **contact))
        copies.append(
            visual_geom(
                part.shape, part.size, part.pos, name=f"{second}_visual", mass=1e-8, material=material, **contact
            )
        )
    joint = element("joint", name=object_joint(name), type="free", damping=0.0005)
    return body(f"{name}_main", None, *solids, *copies, marker_site(f"{name}_default_site"), joint)


def twin_body(name: str) -> ET.Element:
    """The goal twin: the object's shape, drawn transparent where the object should go."""
    geoms = [
        visual_geom(
            part.shape,
            part.twin_size or part.size,
            part.twin_pos or part.pos,
            name=f"Visual{name}_g{i}",
            rgba=_TWIN_RGBA,
        )
        for i, part in enumerate(OBJECT_SPECS[name].parts)
    ]
    return body(f"Visual{name}_main", None, *geoms, marker_site(f"Visual{name}_default_site"))


def assets(name: str) -> list[ET.Element]:
    return [element("material", name=f"{name}_sceramic", rgba=(0.18, 0.42, 0.75, 1), specular=0.5)]
