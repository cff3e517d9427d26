"""Where the object starts and where goal and obstacle stand (positions in m, world frame)."""

from __future__ import annotations

import numpy as np

from envs.composuite.arenas import BIN1_POS, bin2_pos, shelf_pos, trashcan_pos
from envs.composuite.objects import OBJECT_SPECS
from envs.composuite.obstacles import OBSTACLE_SPECS
from envs.composuite.robots import NUM_ARM_JOINTS
from offline_compositional_rl_datasets.composuite import CompoSuiteTask

_TABLE_HALF_THICKNESS = 0.02
_MAX_ATTEMPTS = 5000


def goal_position(task: CompoSuiteTask) -> np.ndarray:
    """(3,) where the goal twin of the object stands; it does not depend on robot or obstacle."""
    bottom = OBJECT_SPECS[task.object].bottom
    if task.objective == "Shelf":
        x, y, z = shelf_pos()
        centre = (x, y - 0.1, z + 0.145)
    elif task.objective == "Trashcan":
        x, y, z = trashcan_pos()
        centre = (x, y, z + 0.005)
    else:
        centre = bin2_pos(task.objective)
    return np.array([centre[0], centre[1], centre[2] - bottom])


def obstacle_pose(task: CompoSuiteTask) -> tuple[np.ndarray, np.ndarray] | None:
    """Position (3,) and quaternion (w, x, y, z) of the obstacle's body, None without one."""
    if task.obstacle == "None":
        return None
    spec = OBSTACLE_SPECS[task.obstacle]
    return np.array(spec.pos), np.array(spec.quat)


def sample_object_position(task: CompoSuiteTask, random: np.random.RandomState) -> np.ndarray:
    """(3,) start of the object, uniform over the first bin and clear of the obstacle.

    Draws from a legacy generator in the benchmark's order (7 normals for the arm's noise of magnitude 0, two uniforms
    per placed thing and attempt), so that a seed gives the same episode as there.
    """
    random.randn(NUM_ARM_JOINTS)
    spec = OBJECT_SPECS[task.object]
    obstacle = OBSTACLE_SPECS.get(task.obstacle)
    x_low = -0.1
    if obstacle is not None:
        random.uniform(0.0, 0.0, 2)
        x_low = 0.0 if obstacle.near_object else -0.1
    z = BIN1_POS[2] + _TABLE_HALF_THICKNESS - spec.bottom
    for _ in range(_MAX_ATTEMPTS):
        # For the Plate behind an obstacle low exceeds high; numpy interpolates between them all the same.
        x = random.uniform(high=0.1 - spec.radius, low=x_low + spec.radius) + BIN1_POS[0]
        y = random.uniform(high=0.125 - spec.radius, low=-0.125 + spec.radius) + BIN1_POS[1]
        if obstacle is None or np.hypot(x - obstacle.pos[0], y - obstacle.pos[1]) > spec.radius + obstacle.radius:
            break
    random.uniform(0.0, 0.0, 2)
    return np.array([x, y, z])
