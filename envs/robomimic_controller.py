"""Operational space control of one arm and its gripper, stepped on MuJoCo directly.

The same law as robosuite's OSC_POSE with fixed gains and delta actions (Khatib 1987), without the three forward passes
and the Python layers around each substep. `tests/test_dsrl_envs.py` holds it to robosuite's own stepping.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.linalg.lapack import dposv

_GRIPPER_SPEED = 0.01  # of its command per substep
_GRIPPER_SIGNS = np.array([-1.0, 1.0])
_NULLSPACE_KP = 10.0
_NULLSPACE_KD = 2 * np.sqrt(_NULLSPACE_KP)


class OperationalSpaceController:
    """Goals and gripper command of one robosuite robot; `step` runs a whole control step."""

    def __init__(self, robot: Any, substeps: int) -> None:
        sim = robot.sim
        self.model, self.data = sim.model._model, sim.data._data
        self.substeps = substeps
        # The arm's joints come first in the model of a one-armed robot: slices then give views instead of copies.
        indices = list(robot._ref_joint_vel_indexes)
        if indices != list(range(len(indices))) or list(robot._ref_joint_pos_indexes) != indices:
            raise ValueError(f"joints of {robot.name} at {indices}, expected them first in the model")
        arm = slice(0, len(indices))
        self._site = robot.eef_site_id
        self._arm_ctrl = np.array(robot._ref_joint_actuator_indexes)
        self._finger_ctrl = np.array(robot._ref_joint_gripper_actuator_indexes)
        self._low, self._high = robot.torque_limits
        law = robot.controller
        self._kp_pos, self._kp_ori = law.kp[:3], law.kp[3:6]
        self._kd_pos, self._kd_ori = law.kd[:3], law.kd[3:6]
        self._scale, self._offset = _affine(law.input_min, law.input_max, law.output_min, law.output_max)
        self._input_min, self._input_max = law.input_min, law.input_max
        fingers = self.model.actuator_ctrlrange[self._finger_ctrl]
        self._finger_mid, self._finger_half = fingers.mean(axis=1), 0.5 * (fingers[:, 1] - fingers[:, 0])
        nv = self.model.nv
        self._full_mass, self._jacobian = np.zeros((nv, nv)), np.zeros((6, nv))
        self._mass, self._J = self._full_mass[arm, arm], self._jacobian[:, arm]
        # Views into MuJoCo's memory: attribute access through the bindings costs more than the arithmetic.
        self._q, self._qd = self.data.qpos[arm], self.data.qvel[arm]
        self._bias, self._qM = self.data.qfrc_bias[arm], self.data.qM
        self._position = self.data.site_xpos[self._site]
        self._rotation = self.data.site_xmat[self._site].reshape(3, 3)
        self._ctrl = self.data.ctrl
        self.reset()

    def reset(self) -> None:
        """Goals at the hand's pose, rest pose at the arm's, gripper command in the middle; needs fresh kinematics."""
        self.rest_pose = self._q.copy()
        self.goal_position, self.goal_rotation = self._position.copy(), self._rotation.copy()
        self.gripper_command = np.zeros(len(self._finger_ctrl))

    def step(self, action: np.ndarray) -> None:
        """One control step for `action` (7,) float64, clipped to [-1, 1]; kinematics are those of the new state."""
        model, data = self.model, self.data
        gripper_step = _GRIPPER_SPEED * np.sign(action[6]) * _GRIPPER_SIGNS
        for substep in range(self.substeps):
            mujoco.mj_step1(model, data)
            if substep == 0:
                self._set_goal(action[:6])
            torque = self._torque()
            np.maximum(torque, self._low, out=torque)
            np.minimum(torque, self._high, out=torque)
            self._ctrl[self._arm_ctrl] = torque
            command = self.gripper_command + gripper_step
            self.gripper_command = np.minimum(np.maximum(command, -1.0), 1.0)
            self._ctrl[self._finger_ctrl] = self._finger_mid + self._finger_half * self.gripper_command
            mujoco.mj_step2(model, data)
        mujoco.mj_kinematics(model, data)

    def _set_goal(self, command: np.ndarray) -> None:
        """The goal is taken from the hand's present pose; a rotation of exactly zero keeps the former orientation."""
        delta = np.clip(command, self._input_min, self._input_max) * self._scale + self._offset
        self.goal_position = self._position + delta[:3]
        if delta[3:].any():
            self.goal_rotation = rotation_matrix(delta[3:]) @ self._rotation

    def _torque(self) -> np.ndarray:
        """(7,) torques: J^T Lambda (kp e - kd v) for position and orientation apart, gravity, and the null space."""
        mujoco.mj_jacSite(self.model, self.data, self._jacobian[:3], self._jacobian[3:], self._site)
        mujoco.mj_fullM(self.model, self._full_mass, self._qM)
        J, qd = self._J, self._qd
        velocity = J @ qd
        force = (self.goal_position - self._position) * self._kp_pos - velocity[:3] * self._kd_pos
        error = orientation_error(self.goal_rotation, self._rotation)
        moment = error * self._kp_ori - velocity[3:] * self._kd_ori
        inverse_inertia = J @ _solve(self._mass, J.T)
        wrench = np.empty(6)
        wrench[:3] = _solve(inverse_inertia[:3, :3], force)
        wrench[3:] = _solve(inverse_inertia[3:, 3:], moment)
        posture = (self.rest_pose - self._q) * _NULLSPACE_KP - qd * _NULLSPACE_KD
        wrench -= _solve(inverse_inertia, J @ posture)
        return J.T @ wrench + self._mass @ posture + self._bias


def _affine(
    in_low: np.ndarray, in_high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of the linear map from the interval of inputs to that of outputs."""
    scale = np.abs(out_high - out_low) / np.abs(in_high - in_low)
    return scale, (out_high + out_low) / 2 - (in_high + in_low) / 2 * scale


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix^-1 right for a symmetric positive definite matrix."""
    solution, failed = dposv(matrix, right)[1:]
    if failed:  # at an exact singularity the pseudo-inverse is what remains
        return np.linalg.pinv(matrix) @ right
    return solution


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by |axis_angle| radians about its direction (Rodrigues)."""
    quaternion, matrix = np.empty(4), np.empty(9)
    angle = np.sqrt(axis_angle @ axis_angle)
    mujoco.mju_axisAngle2Quat(quaternion, axis_angle / angle, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def orientation_error(goal: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(3,) sine of the angle times the axis from `present` (3, 3) to `goal`: half the sum of crossed columns."""
    # Sum over columns of present_k x goal_k is the axial vector of goal present^T.
    product = goal @ present.T
    return 0.5 * np.array([product[2, 1] - product[1, 2], product[0, 2] - product[2, 0], product[1, 0] - product[0, 1]])
