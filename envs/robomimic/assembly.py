"""The states of ToolHang and Transport that robosuite's rules ask for: what touches, what is put through what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np

_UPRIGHT = np.pi / 18  # rad between the stand's shaft and the vertical
_INSERTED = 0.05  # m between the frame's tip and the stand's base
_ON_HOOK = (0.05, 1.0)  # share of the hook's length at which the tool hangs

Flags = Callable[[], tuple[bool, bool]]


def tool_hang_flags(original: Any, model: mujoco.MjModel, data: mujoco.MjData) -> Flags:
    """Whether the frame stands in the stand, and whether the tool hangs on the frame and in no hand."""
    site = {name: data.site_xpos[model.site(name).id] for name in original.obj_site_id}
    walls = [data.geom_xpos[model.geom(f"stand_wall{i}").id] for i in range(4)]
    base = data.geom_xpos[model.geom("stand_base").id]
    hole = [f"tool_hole1_hc_{i}" for i in range(original.tool_args["ngeoms"])]
    parts = original.robots[0].gripper.important_geoms
    pads = [name for side in ("left", "right") for name in parts[f"{side}_fingerpad"]]
    held = touching(model, data, pads, original.tool.contact_geoms)
    on_hook = touching(model, data, hole, ["frame_horizontal_frame"])
    play = original.tool_args["inner_radius_1"] - original.frame_args["frame_thickness"] / 2
    near, far = (data.geom_xpos[model.geom(hole[i]).id] for i in (0, len(hole) // 2))

    def assembled() -> bool:
        shaft = site["stand_mount_site"] - base
        upright = abs(np.arccos(shaft[2] / np.linalg.norm(shaft))) < _UPRIGHT
        inserted = np.linalg.norm(site["frame_tip_site"] - base) < _INSERTED
        end = site["frame_mount_site"]
        rod = site["frame_intersection_site"] - end
        between = all(_on_both_sides(end, rod, walls[i], walls[i + 2]) for i in (0, 1))
        return bool(upright and inserted and between)

    def hung() -> bool:
        end = site["frame_hang_site"]
        hook = site["frame_intersection_site"] - end
        length = np.linalg.norm(hook)
        along = hook / length
        center = site["tool_hole1_center"] - end
        place = center @ along
        beside = np.linalg.norm(center - place * along)
        inside = _ON_HOOK[0] < place / length < _ON_HOOK[1] and beside < play
        return bool(not held() and on_hook() and inside and _on_both_sides(end, along, near, far))

    def flags() -> tuple[bool, bool]:
        mujoco.mj_collision(model, data)  # contacts of the present state, not of that a substep ago
        return assembled(), hung()

    return flags


def transport_flags(original: Any, model: mujoco.MjModel, data: mujoco.MjData) -> Flags:
    """Whether the payload lies in the target bin, and whether the trash lies in the trash bin: it touches the base."""
    group = original.transport
    payload = touching(model, data, group.target_bin.base_geoms, group.payload.contact_geoms)
    trash = touching(model, data, group.trash_bin.base_geoms, group.trash.contact_geoms)

    def flags() -> tuple[bool, bool]:
        mujoco.mj_collision(model, data)
        return payload(), trash()

    return flags


def touching(
    model: mujoco.MjModel, data: mujoco.MjData, ones: Sequence[str], others: Sequence[str]
) -> Callable[[], bool]:
    """Whether any geom of the first names is in contact with any of the second."""
    first, second = (np.zeros(model.ngeom, bool) for _ in range(2))
    for mask, names in ((first, ones), (second, others)):
        mask[[model.geom(name).id for name in names]] = True

    def touch() -> bool:
        pairs = data.contact.geom[: data.ncon]
        a, b = pairs[:, 0], pairs[:, 1]
        return bool(((first[a] & second[b]) | (first[b] & second[a])).any())

    return touch


def _on_both_sides(end: np.ndarray, line: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two points lie on different sides of the line from `end`."""
    return float(np.cross(one - end, line) @ np.cross(other - end, line)) < 0
