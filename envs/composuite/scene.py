"""Assemble a task's MuJoCo model once and keep it: compiled in memory, its MJCF on disk.

The order of the parts (arena, robot, goal twin, object, obstacle) fixes the order of bodies, geoms and contacts, and
with it the last bits of the physics.

Half of a task's geoms and nearly all its meshes are only drawn. The simulation steps a model without them, which gives
the same physics to the last bit in three quarters of the time and compiles in a tenth of it; pictures are drawn from
the whole one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import logging
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import mujoco
import numpy as np

from envs.composuite import arenas, objects, obstacles, robots
from envs.composuite.mjcf import VISUAL_GROUP, element
from envs.composuite.placement import goal_position, obstacle_pose
from offline_compositional_rl_datasets.composuite import CompoSuiteTask, described
from runtime.atomic import atomic_path
from runtime.paths import machine_settings

TIMESTEP = 0.002


def task_xml(task: CompoSuiteTask) -> str:
    """The MJCF of a task (imports robosuite for the arm, the gripper and the mount).

    Raises `TaskError` where an element of the task has no entry in the file that describes its axis.
    """
    expect_described(task)
    # On its first import robosuite advises at length to make a settings file that nothing here needs.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    from robosuite.models.world import MujocoWorldBase

    world = MujocoWorldBase()
    world.root.find("option").set("timestep", repr(TIMESTEP))
    world.asset.extend(arenas.assets())
    world.worldbody.extend(arenas.worldbody(task.objective))
    world.merge(robots.robot_model(task.robot))
    for one, other in robots.ROBOT_SPECS[task.robot].touching:
        world.contact.append(element("exclude", body1=one, body2=other))
    world.asset.extend(objects.assets(task.object))
    world.worldbody.append(objects.twin_body(task.object))
    world.worldbody.append(objects.object_body(task.object))
    if task.obstacle != "None":
        world.asset.extend(obstacles.assets(task.obstacle))
        world.worldbody.append(obstacles.obstacle_body(task.obstacle))
    return ET.tostring(world.root, encoding="unicode")


def expect_described(task: CompoSuiteTask) -> None:
    """Raises `TaskError` for an element that is listed in its axis but not described in this package."""
    described(objects.OBJECT_SPECS, task, "object", "envs/composuite/objects.py")
    described(robots.ROBOT_SPECS, task, "robot", "envs/composuite/robots.py")
    if task.obstacle != "None":
        described(obstacles.OBSTACLE_SPECS, task, "obstacle", "envs/composuite/obstacles.py")


def _place_static_bodies(model: mujoco.MjModel, task: CompoSuiteTask) -> None:
    """Write the poses of goal twin and obstacle, which are the same in every episode, into the model."""
    model.body(f"Visual{task.object}_main").pos[:] = goal_position(task)
    pose = obstacle_pose(task)
    if pose is not None:
        obstacle = model.body(f"Obstacle{task.obstacle}_main")
        obstacle.pos[:], obstacle.quat[:] = pose


def placement(model: mujoco.MjModel, task: CompoSuiteTask) -> np.ndarray:
    """(1 or 2, 7): position and quaternion (w, x, y, z) of the goal twin and, where there is one, the obstacle."""
    names = [f"Visual{task.object}_main"] + [f"Obstacle{task.obstacle}_main"] * (task.obstacle != "None")
    return np.array([[*model.body(name).pos, *model.body(name).quat] for name in names])


@functools.cache
def _fingerprint() -> str:
    """Changes whenever this package's sources, or version or place of robosuite (and its mesh files) do."""
    place = importlib.util.find_spec("robosuite").origin
    digest = hashlib.sha256(f"{version('robosuite')} {place}".encode())
    for module in ("mjcf.py", "arenas.py", "objects.py", "obstacles.py", "robots.py", "placement.py", "scene.py"):
        digest.update((Path(__file__).parent / module).read_bytes())
    return digest.hexdigest()[:16]


def without_drawn_parts(xml: str) -> str:
    """The MJCF without what has neither contacts nor mass: visual geoms with their meshes, and materials.

    Of the geoms that remain the compiler drops those without contacts, after their mass has been counted.
    """
    root = ET.fromstring(xml)
    for parent in list(root.iter()):
        for node in parent.findall("geom"):
            if (node.get("contype"), node.get("conaffinity"), node.get("group")) == ("0", "0", str(VISUAL_GROUP)):
                parent.remove(node)
            elif "material" in node.attrib:
                del node.attrib["material"]
    meshes = {node.get("mesh") for node in root.iter("geom")}
    for assets in root.findall("asset"):
        for node in list(assets):
            if node.tag in ("material", "texture") or (node.tag == "mesh" and node.get("name") not in meshes):
                assets.remove(node)
    root.find("compiler").set("discardvisual", "true")
    return ET.tostring(root, encoding="unicode")


def _physics_xml(task: CompoSuiteTask) -> str:
    """What `physics_model` compiles, kept on disk: reading it spares a process the import of robosuite.

    A cache that cannot be written (a full disk, a read-only home) is done without.
    """
    path = machine_settings().cache_path / "models" / _fingerprint() / f"{task.name}.xml"
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        xml = without_drawn_parts(task_xml(task))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(xml)
    return xml


@functools.lru_cache(maxsize=64)
def physics_model(task: CompoSuiteTask) -> mujoco.MjModel:
    """The model that is stepped, without geoms that are only drawn; shared in this process, not to be written to."""
    try:
        model = mujoco.MjModel.from_xml_string(_physics_xml(task))
    except ValueError:  # a damaged file in the cache
        model = mujoco.MjModel.from_xml_string(without_drawn_parts(task_xml(task)))
    _place_static_bodies(model, task)
    return model


@functools.lru_cache(maxsize=4)
def drawn_model(task: CompoSuiteTask) -> mujoco.MjModel:
    """The whole model, with the same bodies and joints; shared in this process, not to be written to."""
    model = mujoco.MjModel.from_xml_string(task_xml(task))
    _place_static_bodies(model, task)
    return model
