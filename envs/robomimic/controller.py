"""Operational space control of one arm and its gripper, stepped on MuJoCo directly.

The same law as robosuite's OSC_POSE with fixed gains and delta actions (Khatib 1987), without the three forward passes
and the Python layers around each substep. Tests hold it to robosuite 1.4's own stepping, and to traces of 1.5's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from envs.robomimic.arguments import Law
from envs.robomimic.substeps import NUM_JOINTS, run_substeps
from envs.task_env import HoldsViews

_ARM = slice(0, NUM_JOINTS)
_FINGERS = slice(NUM_JOINTS, NUM_JOINTS + 2)
_MEMORY = ("rest_pose", "goal_position", "goal_rotation", "gripper_command", "first_mass")


class OperationalSpaceController(HoldsViews):
    """Goals and gripper command of a robosuite robot, acting on `model` and `data`; `step` runs a whole control step.

    `robot` gives indices and gains; `model` need not be the one that robosuite holds, but has its joints and sites.
    """

    def __init__(self, robot: Any, law: Law, model: mujoco.MjModel, data: mujoco.MjData, substeps: int) -> None:
        _expect_arm_first(robot, model)
        self.model, self.data, self.substeps = model, data, substeps
        self._site = int(robot.eef_site_id)
        built = robot.controller
        self._kp, self._kd = (np.array(gains[:6], dtype=np.float64) for gains in (built.kp, built.kd))
        self._scale, self._offset = _affine(built.input_min, built.input_max, built.output_min, built.output_max)
        self._input_min, self._input_max = built.input_min, built.input_max
        self._keeps_orientation, self._finger_steps = law.keeps_orientation, np.array(law.finger_steps)
        self._low, self._high = (np.array(limit, dtype=np.float64) for limit in robot.torque_limits)
        fingers = model.actuator_ctrlrange[_FINGERS]
        self._finger_middle, self._finger_half = fingers.mean(axis=1), 0.5 * (fingers[:, 1] - fingers[:, 0])
        self._mass_rows, self._jacobian = model.dof_Madr[_ARM].copy(), np.zeros((6, model.nv))
        # Views into MuJoCo's memory: attribute access through the bindings costs more than the arithmetic.
        self._q, self._qd, self._bias = data.qpos[_ARM], data.qvel[_ARM], data.qfrc_bias[_ARM]
        self._qM, self._ctrl = data.qM, data.ctrl
        self._position, self._rotation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        self.reset()

    def reset(self, first_mass: np.ndarray | None = None) -> None:
        """Goals at the hand's pose, rest pose at the arm's, gripper command in the middle; needs fresh kinematics.

        `first_mass` (7, 7) is used in the next substep in place of the state's own mass matrix.
        """
        self.rest_pose = self._q.copy()
        self.goal_position, self.goal_rotation = self._position.copy(), self._rotation.copy()
        self.gripper_command = np.zeros(2)
        self.first_mass = np.full((NUM_JOINTS, NUM_JOINTS), np.nan) if first_mass is None else first_mass.copy()

    def snapshot(self) -> dict[str, np.ndarray]:
        """What the next control step depends on besides the physics' state."""
        return {name: getattr(self, name).copy() for name in _MEMORY}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        for name in _MEMORY:
            getattr(self, name)[:] = np.asarray(snapshot[name])

    def step(self, action: np.ndarray) -> None:
        """One control step for `action` (7,) float64, clipped to [-1, 1]; kinematics are those of the new state.

        Of the last number the sign alone acts.
        """
        delta = np.clip(action[:6], self._input_min, self._input_max) * self._scale + self._offset
        run_substeps(
            self.substeps, self.model._address, self.data._address, self._site, delta, self._keeps_orientation,
            np.sign(action[6]) * self._finger_steps, self.goal_position, self.goal_rotation, self.gripper_command,
            self.rest_pose, self.first_mass, self._kp, self._kd, self._q, self._qd, self._bias, self._qM,
            self._mass_rows, self._position, self._rotation, self._ctrl, self._low, self._high, self._finger_middle,
            self._finger_half, self._jacobian,
        )  # fmt: skip


def _expect_arm_first(robot: Any, model: mujoco.MjModel) -> None:
    """Slices then give views instead of copies, and the arm's part of the mass matrix needs nothing of the rest."""
    arm = list(range(NUM_JOINTS))
    found = {
        "positions": list(robot._ref_joint_pos_indexes),
        "velocities": list(robot._ref_joint_vel_indexes),
        "actuators": list(robot._ref_joint_actuator_indexes),
        "parents": [int(parent) + 1 for parent in model.dof_parentid[_ARM]],
    }
    for what, indices in found.items():
        if indices != arm:
            raise ValueError(f"{what} of the joints of {robot.name} at {indices}, expected {arm}")
    fingers = list(robot._ref_joint_gripper_actuator_indexes)
    if fingers != [NUM_JOINTS, NUM_JOINTS + 1]:
        raise ValueError(f"actuators of the fingers of {robot.name} at {fingers}, expected them after the arm's")


def _affine(
    in_low: np.ndarray, in_high: np.ndarray, out_low: np.ndarray, out_high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of the linear map from the interval of inputs to that of outputs."""
    scale = np.abs(out_high - out_low) / np.abs(in_high - in_low)
    return scale, (out_high + out_low) / 2 - (in_high + in_low) / 2 * scale
