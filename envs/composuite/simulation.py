"""One task's physics under the joint-position controller: MuJoCo stepped directly, no observations, no rewards.

Each of the 25 substeps of a control step runs the first half of MuJoCo's step (kinematics, mass matrix, bias), the
controller, and the second half (`substeps.py`). That gives bit for bit what the benchmark's three forward passes per
substep give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from envs.composuite.objects import object_joint
from envs.composuite.robots import GRIPPER_OPEN_QPOS, NUM_ARM_JOINTS, ROBOT_SPECS
from envs.composuite.scene import TIMESTEP, physics_model, placement
from envs.composuite.substeps import run_substeps
from envs.task_env import CONTROL_FREQUENCY, HoldsViews
from offline_compositional_rl_datasets.composuite import CompoSuiteTask

SUBSTEPS = int(1 / CONTROL_FREQUENCY / TIMESTEP)
ACTION_DIM = NUM_ARM_JOINTS + 1

_ARM = slice(0, NUM_ARM_JOINTS)
_FINGERS_QPOS = slice(NUM_ARM_JOINTS, NUM_ARM_JOINTS + 2)
_FINGERS_CTRL = slice(NUM_ARM_JOINTS, NUM_ARM_JOINTS + 2)
_ALL_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION

MAX_JOINT_STEP = 0.05
"""Largest change of an arm joint's goal per control step (rad)."""


class Simulation(HoldsViews):
    """Model and data of one task, the controller and the gripper's command state.

    The model is shared between simulations of the same task and must not be written to. It lacks geoms that are only
    drawn (`scene.drawn_model` has them).
    """

    def __init__(self, task: CompoSuiteTask) -> None:
        self.model = physics_model(task)
        self.data = mujoco.MjData(self.model)
        self.task = task
        self.gripper_state = np.zeros(2)
        joint = self.model.joint(object_joint(task.object))
        self.object_qpos = slice(joint.qposadr[0], joint.qposadr[0] + 7)
        self._mass_rows = self.model.dof_Madr[_ARM].copy()
        # Column-major, as the benchmark has it: BLAS then adds in the same order and the product is equal to the bit.
        self._mass = np.zeros((NUM_ARM_JOINTS, NUM_ARM_JOINTS), order="F")
        self._mass_is_given = False
        self._torque_limit = self.model.actuator_ctrlrange[_ARM, 1].copy()
        finger_range = self.model.actuator_ctrlrange[_FINGERS_CTRL]
        self.finger_middle = finger_range.mean(axis=1)
        self.finger_half = 0.5 * (finger_range[:, 1] - finger_range[:, 0])
        # Persistent views into MuJoCo's memory: attribute access through the bindings costs more than the arithmetic.
        self._qpos, self._q = self.data.qpos, self.data.qpos[_ARM]
        self._qd = self.data.qvel[_ARM]
        self._bias = self.data.qfrc_bias[_ARM]
        self._qM = self.data.qM
        self._ctrl = self.data.ctrl
        self._judged = np.zeros(self.model.nq)  # the positions to which poses and contacts belong
        self._initial_qpos = np.array(ROBOT_SPECS[task.robot].initial_qpos)
        self._reset_mass = self._mass_with_closed_fingers()

    def _mass_with_closed_fingers(self) -> np.ndarray:
        """(7, 7): the mass matrix that the benchmark's controller caches at reset and uses once.

        It is taken before the fingers are opened. Nothing but arm and fingers enters it, so one serves all episodes.
        """
        mujoco.mj_resetData(self.model, self.data)
        self._q[:] = self._initial_qpos
        mujoco.mj_forward(self.model, self.data)
        full = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, full, self._qM)
        return full[_ARM, _ARM].copy()

    def reset(self, object_position: np.ndarray) -> None:
        """Arm at its start pose, fingers open, the object upright at `object_position` (3,), everything at rest."""
        mujoco.mj_resetData(self.model, self.data)
        self._q[:] = self._initial_qpos
        self.data.qpos[_FINGERS_QPOS] = GRIPPER_OPEN_QPOS
        self.data.qpos[self.object_qpos] = (*object_position, 1.0, 0.0, 0.0, 0.0)
        self.gripper_state[:] = 0.0
        self._give_mass(self._reset_mass)
        self._forward()

    def reset_to(
        self,
        qpos: np.ndarray,
        qvel: np.ndarray,
        *,
        warmstart: np.ndarray | None = None,
        gripper: np.ndarray | None = None,
        first_mass: np.ndarray | None = None,
    ) -> None:
        """Put in a state: positions (nq,), velocities and warm start (nv,), the gripper's command (2,) in [-1, 1].

        `first_mass` (7, 7) is used in the next substep instead of the state's own mass matrix.
        """
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        self.data.qvel[:] = qvel
        self._forward()
        self.data.qacc_warmstart[:] = 0.0 if warmstart is None else warmstart
        self.gripper_state[:] = 0.0 if gripper is None else gripper
        self._give_mass(first_mass)

    def _forward(self) -> None:
        mujoco.mj_forward(self.model, self.data)
        self._judged[:] = self.data.qpos

    def snapshot(self) -> dict[str, Any]:
        """The state, as arrays of its own, for `restore`.

        `state`: MuJoCo's of all that integration depends on (time, positions, velocities, warm start, control, applied
        forces); `judged` (nq,): positions to which poses and contacts belong, one substep behind; `gripper` (2,);
        `first_mass` (7, 7) or None; `placement` (n, 7): poses of goal and obstacle.
        """
        state = np.empty(mujoco.mj_stateSize(self.model, _ALL_PHYSICS))
        mujoco.mj_getState(self.model, self.data, state, _ALL_PHYSICS)
        return {
            "state": state,
            "judged": self._judged.copy(),
            "gripper": self.gripper_state.copy(),
            "first_mass": self._mass.copy() if self._mass_is_given else None,
            "placement": placement(self.model, self.task),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take a `snapshot` of a simulation of this task, poses and contacts too.

        Raises `ValueError` where goal or obstacle stand elsewhere in it.
        """
        state, judged, placed = (np.asarray(snapshot[name]) for name in ("state", "judged", "placement"))
        if not np.array_equal(placed, placement(self.model, self.task)):
            raise ValueError(f"goal and obstacle at {placed.tolist()}, where those of {self.task} never are")
        mujoco.mj_resetData(self.model, self.data)
        self._qpos[:] = judged
        self._judged[:] = judged
        mujoco.mj_fwdPosition(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, state, _ALL_PHYSICS)
        self.gripper_state[:] = np.asarray(snapshot["gripper"])
        self._give_mass(snapshot["first_mass"])

    def _give_mass(self, mass: np.ndarray | None) -> None:
        """What the next substep alone takes for the mass matrix (7, 7); None: the state's own."""
        self._mass_is_given = mass is not None
        if mass is not None:
            self._mass[:] = np.asarray(mass)

    def step(self, action: np.ndarray) -> None:
        """One control step (50 ms): the arm's goal is set once, torques and gripper command at every substep.

        `action` (8,): joint commands in [-1, 1] (clipped), then the gripper command, of which only the sign counts.
        """
        goal = self._q + MAX_JOINT_STEP * np.clip(action[_ARM], -1.0, 1.0)
        run_substeps(
            SUBSTEPS, self.model._address, self.data._address, goal, np.sign(action[NUM_ARM_JOINTS]),
            self.gripper_state, self._q, self._qd, self._bias, self._qM, self._mass_rows, self._mass,
            self._mass_is_given, self._ctrl, self._torque_limit, self.finger_middle, self.finger_half,
            self._qpos, self._judged,
        )  # fmt: skip
        self._mass_is_given = False
