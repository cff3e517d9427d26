"""CompoSuite's simulator put into observed states.

An observation tells the arm's joints and their velocities, the fingers' and the object's pose. It does not tell the
object's velocity (taken as zero), the gripper's command (taken from the fingers) or the contact forces of the step
before. So recorded transitions do not come out exactly either.
"""

from __future__ import annotations

import numpy as np

from envs.composuite.env import CompoSuiteEnv
from envs.composuite.robots import NUM_ARM_JOINTS
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask

_RESTING = 2e-3  # fingers slower than this (m/s) are held or at their stop
_UNIT_TOLERANCE = 0.1  # of a quaternion's length


class Parts:
    """Where things are in CompoSuite's state of 77."""

    position = slice(0, 3)
    rotation = slice(3, 7)
    cosines, sines = COMPOSUITE.angles[0]
    velocities, finger_velocities = COMPOSUITE.velocities
    tool = slice(66, 69)
    fingers = slice(73, 75)


def joint_angles(state: np.ndarray) -> np.ndarray:
    """(..., 7) rad in (-pi, pi] from states (..., 77)."""
    angles: np.ndarray = np.arctan2(state[..., Parts.sines], state[..., Parts.cosines])
    return angles


class CompoSuiteStateSetter:
    """An environment of a task that is put into observed states and stepped once from each."""

    def __init__(self, task: CompoSuiteTask) -> None:
        self.env = CompoSuiteEnv(task, ignore_done=True)
        self.env.reset(seed=0)
        simulation = self.env.simulation
        self._start = simulation.data.qpos[:NUM_ARM_JOINTS].copy()

    def determined(self, states: np.ndarray) -> np.ndarray:
        """(N,) which of states (N, 77) say how the object is turned: by a quaternion of about unit length."""
        lengths = np.linalg.norm(states[:, Parts.rotation], axis=1)
        return np.asarray(np.abs(lengths - 1) <= _UNIT_TOLERANCE)

    def set(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Put in a state (77,), before `action`; gives what the simulator itself observes there."""
        simulation = self.env.simulation
        qpos, qvel = np.zeros(simulation.model.nq), np.zeros(simulation.model.nv)
        angles = joint_angles(state)
        # An angle is known up to full turns; joints with more than one start near the middle of their range.
        qpos[:NUM_ARM_JOINTS] = angles + 2 * np.pi * np.round((self._start - angles) / (2 * np.pi))
        qpos[NUM_ARM_JOINTS : NUM_ARM_JOINTS + 2] = state[Parts.fingers]
        x, y, z, w = state[Parts.rotation] / np.linalg.norm(state[Parts.rotation])
        qpos[simulation.object_qpos] = (*state[Parts.position], w, x, y, z)
        qvel[:NUM_ARM_JOINTS] = state[Parts.velocities]
        qvel[NUM_ARM_JOINTS : NUM_ARM_JOINTS + 2] = state[Parts.finger_velocities]
        self.env.reset_to(qpos, qvel, gripper=self._gripper(state, action))
        return self.env.full_observation()

    def _gripper(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """(2,) command of the fingers: where they are while they move, at its stop while something holds them."""
        simulation = self.env.simulation
        command: np.ndarray = np.clip(
            (state[Parts.fingers] - simulation.finger_middle) / simulation.finger_half, -1.0, 1.0
        )
        if np.abs(state[Parts.finger_velocities]).max() < _RESTING and action[-1] != 0:
            command = np.sign(action[-1]) * np.array([1.0, -1.0])
        return command

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """The simulator's next state (77,), reward, and whether the episode ends there."""
        _, reward, terminated, _, _ = self.env.step(action)
        return self.env.full_observation(), reward, terminated
