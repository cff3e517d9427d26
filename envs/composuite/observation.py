"""The 77-dimensional observation, in the order of the benchmark (positions in m, quaternions (x, y, z, w))."""

from __future__ import annotations

import numpy as np

from envs.composuite.robots import GRIP_SITE, HAND_BODY, NUM_ARM_JOINTS
from envs.composuite.simulation import Simulation
from offline_compositional_rl_datasets.layout import COMPOSUITE

_XYZW = [1, 2, 3, 0]
_ARM = slice(0, NUM_ARM_JOINTS)
_FINGERS = slice(NUM_ARM_JOINTS, NUM_ARM_JOINTS + 2)


class Poses:
    """Views on the poses that observation and reward read. They lag by one 2 ms substep after a control step."""

    def __init__(self, simulation: Simulation) -> None:
        model, data, task = simulation.model, simulation.data, simulation.task
        hand = model.body(HAND_BODY).id
        self._things = [model.body(f"{task.object}_main").id]
        self.has_obstacle = task.obstacle != "None"
        if self.has_obstacle:
            self._things.append(model.body(f"Obstacle{task.obstacle}_main").id)
        self._things.append(model.body(f"Visual{task.object}_main").id)
        self._rows = [0, 1, 2] if self.has_obstacle else [0, 2]
        self.object_position = data.xpos[self._things[0]]
        self.goal_position = data.xpos[self._things[-1]]
        self.tool_position = data.site(GRIP_SITE).xpos
        self.hand_matrix = data.xmat[hand].reshape(3, 3)
        self.hand_quaternion = data.xquat[hand]
        self._xpos, self._xquat = data.xpos, data.xquat

    def positions_and_quaternions(self) -> tuple[np.ndarray, np.ndarray]:
        """(3, 3) positions and (3, 4) quaternions (w, x, y, z) of object, obstacle and goal.

        Without an obstacle its place is the world's origin with a zero quaternion.
        """
        positions, quaternions = np.zeros((3, 3)), np.zeros((3, 4))
        positions[self._rows] = self._xpos[self._things]
        quaternions[self._rows] = self._xquat[self._things]
        return positions, quaternions


class Observer:
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
        tool = poses.tool_position
        positions, quaternions = poses.positions_and_quaternions()
        # The gripper frame: origin at the grip site, orientation of the hand body.
        relative = (positions - tool) @ poses.hand_matrix
        w, x, y, z = poses.hand_quaternion
        inverse = np.array([[w, x, y, z], [-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])
        turned = quaternions
        if not poses.has_obstacle:
            turned = quaternions.copy()
            turned[1, 0] = 1.0
        turns = turned @ inverse.T
        turns[turns[:, 0] < 0] *= -1.0

        observation = np.empty(COMPOSUITE.state_dim)
        blocks = observation[:42].reshape(3, 14)
        blocks[:, 0:3] = positions
        blocks[:, 3:7] = quaternions[:, _XYZW]
        blocks[:, 7:10] = relative
        blocks[:, 10:14] = turns[:, _XYZW]
        observation[42:45] = positions[2] - positions[0]
        np.cos(self._joints, out=observation[45:52])
        np.sin(self._joints, out=observation[52:59])
        observation[59:66] = self._joint_velocities
        observation[66:69] = tool
        observation[69:73] = poses.hand_quaternion[_XYZW]
        observation[73:75] = self._fingers
        observation[75:77] = self._finger_velocities
        return observation
