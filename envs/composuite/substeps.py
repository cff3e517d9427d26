"""The substeps of a control step as one compiled call: no interpreter between MuJoCo's functions, and no lock held."""

from __future__ import annotations

import numpy as np

from envs.compiled import compiled
from envs.compiled_mujoco import mj_step1, mj_step2
from envs.composuite.robots import NUM_ARM_JOINTS

_KP = 50.0
_KD = 2 * np.sqrt(_KP)
_GRIPPER_SPEED = 0.01


@compiled
def run_substeps(
    substeps: int, model: int, data: int, goal: np.ndarray, gripper_sign: float, gripper: np.ndarray, q: np.ndarray,
    qd: np.ndarray, bias: np.ndarray, qM: np.ndarray, mass_rows: np.ndarray, mass: np.ndarray, mass_is_given: bool,
    ctrl: np.ndarray, limit: np.ndarray, middle: np.ndarray, half: np.ndarray, qpos: np.ndarray, judged: np.ndarray,
) -> None:  # fmt: skip
    """`substeps` physics steps with the arm's torques towards `goal` (7,) and the fingers moving on.

    `model` and `data` are addresses; `q`, `qd`, `bias` (7,), `ctrl` (9,) and `qM` are views of `data`'s memory, and
    `mass_rows` (7,) says where each arm joint's row of the mass matrix starts in `qM`. `mass` (7, 7) column-major is
    scratch, or, where `mass_is_given`, what the first substep uses. `gripper` (2,) is the command state of the two
    fingers, which moves by 0.01 a substep towards the sign of the command and stops at +-1; `middle` and `half` (2,)
    turn it into positions. `qpos` (nq,) is the view of all positions; `judged` (nq,) becomes those that the last
    substep began with, to which poses and contacts belong from then on.

    torque = M (50 (goal - q) - 2 sqrt(50) qd) + bias, limited to +-`limit` (7,).
    """
    error = np.empty(NUM_ARM_JOINTS)
    for substep in range(substeps):
        mj_step1(model, data)
        if substep == substeps - 1:
            judged[:] = qpos
        if substep > 0 or not mass_is_given:
            # MuJoCo keeps row i of the lower triangle from the diagonal towards the base.
            for i in range(NUM_ARM_JOINTS):
                for j in range(i + 1):
                    value = qM[mass_rows[i] + i - j]
                    mass[i, j] = value
                    mass[j, i] = value
        for i in range(NUM_ARM_JOINTS):
            error[i] = (goal[i] - q[i]) * _KP + -qd[i] * _KD
        # BLAS, as in the benchmark: it adds in the same order, so that the product is equal to the last bit.
        torque = np.dot(mass, error)
        for i in range(NUM_ARM_JOINTS):
            ctrl[i] = max(min(torque[i] + bias[i], limit[i]), -limit[i])
        for finger in range(2):
            step = _GRIPPER_SPEED * gripper_sign if finger == 0 else -_GRIPPER_SPEED * gripper_sign
            gripper[finger] = max(min(gripper[finger] + step, 1.0), -1.0)
            ctrl[NUM_ARM_JOINTS + finger] = middle[finger] + half[finger] * gripper[finger]
        mj_step2(model, data)
