"""Assemble a task's MuJoCo model once and keep it: in memory, and as a binary on disk.

The order of the parts (arena, robot, goal twin, object, obstacle) fixes the order of bodies, geoms and contacts, and
with it the last bits of the physics.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import mujoco

from envs.composuite import arenas, objects, obstacles, robots
from envs.composuite.placement import goal_position, obstacle_pose
from offline_compositional_rl_datasets.task import Task
from runtime.atomic import atomic_path
from runtime.paths import machine_settings

TIMESTEP = 0.002


def task_xml(task: Task) -> str:
    """The MJCF of a task (imports robosuite for the arm, the gripper and the mount)."""
    # On its first import robosuite advises at length to make a settings file that nothing here needs.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    from robosuite.models.world import MujocoWorldBase

    world = MujocoWorldBase()
    world.root.find("option").set("timestep", repr(TIMESTEP))
    world.asset.extend(arenas.assets())
    world.worldbody.extend(arenas.worldbody(task.objective))
    world.merge(robots.robot_model(task.robot))
    world.asset.extend(objects.assets(task.object))
    world.worldbody.append(objects.twin_body(task.object))
    world.worldbody.append(objects.object_body(task.object))
    if task.obstacle != "None":
        world.asset.extend(obstacles.assets(task.obstacle))
        world.worldbody.append(obstacles.obstacle_body(task.obstacle))
    return ET.tostring(world.root, encoding="unicode")


def _place_static_bodies(model: mujoco.MjModel, task: Task) -> None:
    """Write the poses of goal twin and obstacle, which are the same in every episode, into the model."""
    model.body(f"Visual{task.object}_main").pos[:] = goal_position(task)
    pose = obstacle_pose(task)
    if pose is not None:
        obstacle = model.body(f"Obstacle{task.obstacle}_main")
        obstacle.pos[:], obstacle.quat[:] = pose


@functools.cache
def _fingerprint() -> str:
    """Changes whenever this package's sources or the versions of MuJoCo and robosuite do."""
    digest = hashlib.sha256(f"{version('mujoco')} {version('robosuite')}".encode())
    for module in ("mjcf.py", "arenas.py", "objects.py", "obstacles.py", "robots.py", "placement.py", "scene.py"):
        digest.update((Path(__file__).parent / module).read_bytes())
    return digest.hexdigest()[:16]


def _cache_file(task: Task) -> Path:
    return machine_settings().cache_path / "models" / _fingerprint() / f"{task.name}.mjb"


@functools.lru_cache(maxsize=32)
def compiled_model(task: Task) -> mujoco.MjModel:
    """The compiled model of a task, shared by this process' environments; copy it before changing it.

    A cache that cannot be read is rebuilt; one that cannot be written (a full disk, a read-only home) is done without.
    """
    path = _cache_file(task)
    if path.exists():
        try:
            return mujoco.MjModel.from_binary_path(os.fspath(path))
        except ValueError:
            path.unlink(missing_ok=True)
    model = mujoco.MjModel.from_xml_string(task_xml(task))
    _place_static_bodies(model, task)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            mujoco.mj_saveModel(model, os.fspath(temporary), None)
    except OSError:
        pass
    return model
