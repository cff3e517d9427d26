"""Operational space control of arms and their grippers, stepped on MuJoCo directly.

The same law as robosuite's OSC_POSE with fixed gains and delta actions (Khatib 1987), without the three forward passes
and the Python layers around each substep. Tests hold it to robosuite 1.4's own stepping, and to traces of 1.5's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from envs.robomimic.arguments import Law
from envs.robomimic.substeps import NUM_JOINTS, run_substeps
from envs.task_env import HoldsViews

_MEMORY = ("rest_pose", "goal_position", "goal_rotation", "gripper_command", "first_mass")
ARM_ACTION_DIM = 7
"""Numbers of an action per arm."""


class OperationalSpaceController(HoldsViews):
    """Goals and gripper commands of robosuite's robots (A), acting on `model` and `data`; `step` runs a control step.

    `robots` give indices and gains; `model` need not be the one that robosuite holds, but has its joints and sites.
    """

    def __init__(
        self, robots: Sequence[Any], law: Law, model: mujoco.MjModel, data: mujoco.MjData, substeps: int
    ) -> None:
        for robot in robots:
            _expect_joints_in_a_row(robot, model)
        self.model, self.data, self.substeps = model, data, substeps
        self._sites = np.array([int(robot.eef_site_id) for robot in robots])
        self._first_q = np.array([int(robot._ref_joint_pos_indexes[0]) for robot in robots])
        self._first_v = np.array([int(robot._ref_joint_vel_indexes[0]) for robot in robots])
        self._first_ctrl = np.array([int(robot._ref_joint_actuator_indexes[0]) for robot in robots])
        built = [robot.controller for robot in robots]
        self._kp, self._kd = (
            np.array([getattr(each, name)[:6] for each in built], dtype=np.float64) for name in ("kp", "kd")
        )
        first = built[0]
        self._scale, self._offset = _affine(first.input_min, first.input_max, first.output_min, first.output_max)
        self._input_min, self._input_max = first.input_min, first.input_max
        self._keeps_orientation, self._finger_steps = law.keeps_orientation, np.array(law.finger_steps)
        self._low, self._high = (
            np.array([robot.torque_limits[end] for robot in robots], dtype=np.float64) for end in (0, 1)
        )
        fingers = model.actuator_ctrlrange[self._first_ctrl[:, None] + NUM_JOINTS + np.arange(2)]
        self._finger_middle, self._finger_half = fingers.mean(axis=2), 0.5 * (fingers[..., 1] - fingers[..., 0])
        joints = np.arange(NUM_JOINTS)
        self._mass_rows, self._jacobian = model.dof_Madr[self._first_v[:, None] + joints], np.zeros((6, model.nv))
        self._joints = self._first_q[:, None] + joints
        # Views into MuJoCo's memory: attribute access through the bindings costs more than the arithmetic.
        self._qpos, self._qvel, self._bias = data.qpos, data.qvel, data.qfrc_bias
        self._qM, self._ctrl = data.qM, data.ctrl
        self._positions, self._rotations = data.site_xpos, data.site_xmat
        self.reset()

    def reset(self, first_mass: np.ndarray | None = None) -> None:
        """Goals at the hands' poses, rest pose at the arms', gripper command in the middle; needs fresh kinematics.

        `first_mass` (A, 7, 7) is used in the next substep in place of the state's own mass matrices.
        """
        arms = len(self._sites)
        self.rest_pose = self._qpos[self._joints]
        self.goal_position = self._positions[self._sites]
        self.goal_rotation = self._rotations[self._sites].reshape(arms, 3, 3)
        self.gripper_command = np.zeros((arms, 2))
        shape = (arms, NUM_JOINTS, NUM_JOINTS)
        self.first_mass = np.full(shape, np.nan) if first_mass is None else np.array(first_mass).reshape(shape)

    def snapshot(self) -> dict[str, np.ndarray]:
        """What the next control step depends on besides the physics' state."""
        return {name: getattr(self, name).copy() for name in _MEMORY}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        for name in _MEMORY:
            getattr(self, name)[:] = np.asarray(snapshot[name])

    def step(self, action: np.ndarray) -> None:
        """One control step for `action` (A * 7,) float64, clipped to [-1, 1]; kinematics are those of the new state.

        Of each arm's last number the sign alone acts.
        """
        each = action.reshape(len(self._sites), ARM_ACTION_DIM)
        delta = np.clip(each[:, :6], self._input_min, self._input_max) * self._scale + self._offset
        run_substeps(
            self.substeps, self.model._address, self.data._address, self._sites, self._first_q, self._first_v,
            self._first_ctrl, delta, self._keeps_orientation, np.sign(each[:, 6:]) * self._finger_steps,
            self.goal_position, self.goal_rotation, self.gripper_command, self.rest_pose, self.first_mass, self._kp,
            self._kd, self._qpos, self._qvel, self._bias, self._qM, self._mass_rows, self._positions, self._rotations,
            self._ctrl, self._low, self._high, self._finger_middle, self._finger_half, self._jacobian,
        )  # fmt: skip


def _expect_joints_in_a_row(robot: Any, model: mujoco.MjModel) -> None:
    """Slices then give views instead of copies, and an arm's part of the mass matrix needs nothing of the rest."""
    first = int(robot._ref_joint_vel_indexes[0])
    row = np.arange(NUM_JOINTS)
    found = {
        "positions": (robot._ref_joint_pos_indexes, int(robot._ref_joint_pos_indexes[0]) + row),
        "velocities": (robot._ref_joint_vel_indexes, first + row),
        "actuators": (robot._ref_joint_actuator_indexes, int(robot._ref_joint_actuator_indexes[0]) + row),
        "parents": (model.dof_parentid[first : first + NUM_JOINTS], np.append(-1, first + row[:-1])),
        "fingers": (
            robot._ref_joint_gripper_actuator_indexes,
            int(robot._ref_joint_actuator_indexes[0]) + NUM_JOINTS + row[:2],
        ),
    }
    for what, (indices, expected) in found.items():
        if [int(index) for index in indices] != [int(index) for index in expected]:
            raise ValueError(f"{what} of {robot.name} at {list(indices)}, expected {list(expected)}")


def _affine(
    in_low: np.ndarray, in_high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of the linear map from the interval of inputs to that of outputs."""
    scale = np.abs(out_high - out_low) / np.abs(in_high - in_low)
    return scale, (out_high + out_low) / 2 - (in_high + in_low) / 2 * scale
