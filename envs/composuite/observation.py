"""The 77-dimensional observation, in the order of the benchmark (positions in m, quaternions (x, y, z, w))."""

from __future__ import annotations

import numpy as np

from envs.compiled import compiled
from envs.composuite.robots import GRIP_SITE, HAND_BODY, NUM_ARM_JOINTS
from envs.composuite.simulation import Simulation
from envs.task_env import HoldsViews
from offline_compositional_rl_datasets.composuite import COMPOSUITE

NO_BODY = -1
HALF_TURN = 1e-9
"""Relative quaternions with |w| below this have x >= 0. IIWA's start pose is such a half turn, exactly: there the
benchmark's sign is what its eigenvector method makes of rounding, and every start that was compared has x > 0."""
_ARM = slice(0, NUM_ARM_JOINTS)
_FINGERS = slice(NUM_ARM_JOINTS, NUM_ARM_JOINTS + 2)


class Poses(HoldsViews):
    """Views on the poses that observation and reward read. They lag by one 2 ms substep after a control step."""

    def __init__(self, simulation: Simulation) -> None:
        model, data, task = simulation.model, simulation.data, simulation.task
        hand = model.body(HAND_BODY).id
        obstacle = NO_BODY if task.obstacle == "None" else model.body(f"Obstacle{task.obstacle}_main").id
        ends = (model.body(f"{task.object}_main").id, model.body(f"Visual{task.object}_main").id)
        self.things = np.array([ends[0], obstacle, ends[1]])
        self.object_position = data.xpos[self.things[0]]
        self.goal_position = data.xpos[self.things[2]]
        self.tool_position = data.site(GRIP_SITE).xpos
        self.hand_matrix = data.xmat[hand].reshape(3, 3)
        self.hand_quaternion = data.xquat[hand]
        self.xpos, self.xquat = data.xpos, data.xquat


class ObservationReader(HoldsViews):
    """Writes observations of a simulation into a fresh array."""

    def __init__(self, simulation: Simulation, poses: Poses) -> None:
        self._poses = poses
        data = simulation.data
        self._joints = data.qpos[_ARM]
        self._joint_velocities = data.qvel[_ARM]
        self._fingers = data.qpos[_FINGERS]
        self._finger_velocities = data.qvel[_FINGERS]

    def observe(self) -> np.ndarray:
        """(77,) float64."""
        poses = self._poses
        observation = np.empty(COMPOSUITE.state_dim)
        _fill(
            observation, poses.things, poses.xpos, poses.xquat, poses.tool_position, poses.hand_matrix,
            poses.hand_quaternion, self._joints, self._joint_velocities, self._fingers, self._finger_velocities,
        )  # fmt: skip
        return observation


@compiled
def _fill(
    out: np.ndarray,
    things: np.ndarray,
    xpos: np.ndarray,
    xquat: np.ndarray,
    tool: np.ndarray,
    hand: np.ndarray,
    hand_quaternion: np.ndarray,
    joints: np.ndarray,
    velocities: np.ndarray,
    fingers: np.ndarray,
    finger_velocities: np.ndarray,
) -> None:
    """Write the observation (77,) into `out`.

    Object, obstacle and goal have 14 numbers each: position, quaternion (x, y, z, w), and both in the gripper's frame,
    which has its origin at the grip site and the orientation of the hand's body. A missing obstacle is at the world's
    origin with a zero quaternion; in the gripper's frame it is turned as an unturned body would be.
    """
    hw, hx, hy, hz = hand_quaternion
    for k in range(3):
        block = out[14 * k : 14 * (k + 1)]
        block[0:7] = 0.0
        w, x, y, z = 1.0, 0.0, 0.0, 0.0
        if things[k] != NO_BODY:
            w, x, y, z = xquat[things[k]]
            block[0:3] = xpos[things[k]]
            block[3:7] = x, y, z, w
        for i in range(3):
            block[7 + i] = 0.0
            for j in range(3):
                block[7 + i] += (block[j] - tool[j]) * hand[j, i]
        # conj(hand) * body, with w >= 0, or x >= 0 at a half turn
        turn_w = hw * w + hx * x + hy * y + hz * z
        turn_x = hw * x - hx * w - hy * z + hz * y
        sign = -1.0 if (turn_x if abs(turn_w) < HALF_TURN else turn_w) < 0 else 1.0
        block[10] = sign * turn_x
        block[11] = sign * (hw * y + hx * z - hy * w - hz * x)
        block[12] = sign * (hw * z - hx * y + hy * x - hz * w)
        block[13] = sign * turn_w
    out[42:45] = out[28:31] - out[0:3]
    out[45:52] = np.cos(joints)
    out[52:59] = np.sin(joints)
    out[59:66] = velocities
    out[66:69] = tool
    out[69:73] = hx, hy, hz, hw
    out[73:75] = fingers
    out[75:77] = finger_velocities
