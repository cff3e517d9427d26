"""The substeps of a Robomimic control step as one compiled call: no interpreter between MuJoCo's functions."""

from __future__ import annotations

import numpy as np

from envs.compiled import compiled
from envs.compiled_mujoco import mj_jacSite, mj_kinematics, mj_step1, mj_step2

NUM_JOINTS = 7
NULLSPACE_KP = 10.0
NULLSPACE_KD = 2 * np.sqrt(NULLSPACE_KP)


@compiled
def run_substeps(
    substeps, model, data, site, delta, keeps_orientation, finger_steps, goal_position, goal_rotation, gripper,
    rest_pose, first_mass, kp, kd, q, qd, bias, qM, mass_rows, position, rotation, ctrl, low, high, middle, half,
    jacobian,
):  # fmt: skip
    """`substeps` physics steps with the hand drawn to its goals; kinematics are those of the new state at the end.

    `delta` (6,) sets the goals from the hand's pose in the first substep: metres, and axis times radians, of which
    exactly zero keeps the former orientation with `keeps_orientation`, else the present one. `finger_steps` (2,)
    close the fingers in the first substep and in each later one. `goal_position` (3,), `goal_rotation` (3, 3) and
    `gripper` (2,), the command of the fingers in [-1, 1], are kept up to date. `first_mass` (7, 7) stands for the
    arm's mass matrix once, unless it is not-a-number. `q`, `qd`, `bias` (7,), `position` (3,), `rotation` (3, 3),
    `ctrl` (9,) and `qM` are views of `data`'s memory; `mass_rows` (7,) says where each arm joint's row of the mass
    matrix starts in `qM`. `middle` and `half` (2,) turn the fingers' command into positions. `jacobian` (6, nv) is
    scratch.
    """
    J, mass = np.empty((6, NUM_JOINTS)), np.empty((NUM_JOINTS, NUM_JOINTS))
    for substep in range(substeps):
        mj_step1(model, data)
        if substep == 0:
            goal_position[:] = position + delta[:3]
            if delta[3] != 0 or delta[4] != 0 or delta[5] != 0:
                goal_rotation[:] = rotation_matrix(delta[3:]) @ rotation
            elif not keeps_orientation:
                goal_rotation[:] = rotation
        mj_jacSite(model, data, jacobian.ctypes.data, jacobian[3:].ctypes.data, site)
        J[:] = jacobian[:, :NUM_JOINTS]
        # MuJoCo keeps row i of the lower triangle from the diagonal towards the base.
        for i in range(NUM_JOINTS):
            for j in range(i + 1):
                mass[i, j] = mass[j, i] = qM[mass_rows[i] + i - j]
        if substep == 0 and not np.isnan(first_mass[0, 0]):
            mass[:] = first_mass
            first_mass[:] = np.nan
        torque = operational_space_torque(
            J, mass, q, qd, position, rotation, goal_position, goal_rotation, rest_pose, kp, kd
        )
        for i in range(NUM_JOINTS):
            ctrl[i] = min(max(torque[i] + bias[i], low[i]), high[i])
        step = finger_steps[0] if substep == 0 else finger_steps[1]
        for finger in range(2):
            moved = gripper[finger] - step if finger == 0 else gripper[finger] + step
            gripper[finger] = max(min(moved, 1.0), -1.0)
            ctrl[NUM_JOINTS + finger] = middle[finger] + half[finger] * gripper[finger]
        mj_step2(model, data)
    mj_kinematics(model, data)


@compiled
def operational_space_torque(J, mass, q, qd, position, rotation, goal_position, goal_rotation, rest_pose, kp, kd):
    """(7,): J^T Lambda (kp e - kd v), position and orientation apart, and the rest pose in the null space; no gravity.

    J (6, 7), mass (7, 7), kp and kd (6,). Khatib (1987), as in robosuite's OSC_POSE.
    """
    error = np.empty(6)
    for i in range(3):
        error[i] = goal_position[i] - position[i]
        # The axial vector of goal present^T: sine of the angle times the axis.
        a, b = (i + 1) % 3, (i + 2) % 3
        error[3 + i] = 0.0
        for k in range(3):
            error[3 + i] += 0.5 * (goal_rotation[b, k] * rotation[a, k] - goal_rotation[a, k] * rotation[b, k])
    pull = error * kp - (J @ qd) * kd
    posture = (rest_pose - q) * NULLSPACE_KP - qd * NULLSPACE_KD
    inverse_inertia = J @ _solve(mass, J.T)
    drift = _solve(inverse_inertia, (J @ posture).reshape(6, 1))
    wrench = np.empty(6)
    wrench[:3] = _solve(inverse_inertia[:3, :3], pull[:3].reshape(3, 1))[:, 0]
    wrench[3:] = _solve(inverse_inertia[3:, 3:], pull[3:].reshape(3, 1))[:, 0]
    return J.T @ (wrench - drift[:, 0]) + mass @ posture


@compiled
def _solve(matrix, right):
    """(n, m): matrix^-1 right for a symmetric positive definite matrix (n, n), by Cholesky's factors L L^T."""
    n, m = right.shape
    L, x = np.empty((n, n)), np.empty((n, m))
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            if i > j:
                L[i, j] = total / L[j, j]
            elif total > 0:
                L[i, i] = np.sqrt(total)
            else:  # at an exact singularity the pseudo-inverse is what remains
                return np.linalg.pinv(matrix.copy()) @ right.copy()
    for c in range(m):
        for i in range(n):
            total = right[i, c]
            for k in range(i):
                total -= L[i, k] * x[k, c]
            x[i, c] = total / L[i, i]
        for i in range(n - 1, -1, -1):
            total = x[i, c]
            for k in range(i + 1, n):
                total -= L[k, i] * x[k, c]
            x[i, c] = total / L[i, i]
    return x


@compiled
def rotation_matrix(axis_angle):
    """(3, 3) rotation by |axis_angle| > 0 radians about its direction, in single precision as robosuite's.

    By way of the unit quaternion q: with its parts times sqrt(2), R = 1 - ... as in Shoemake (1985).
    """
    angle = np.sqrt((axis_angle * axis_angle).sum())
    q = np.empty(4, np.float32)
    q[0] = np.cos(angle / 2)
    q[1:] = axis_angle / angle * np.sin(angle / 2)
    q *= np.sqrt(2.0 / np.dot(q, q))
    p = np.outer(q, q)
    return np.array(
        [
            [1.0 - p[2, 2] - p[3, 3], p[1, 2] - p[3, 0], p[1, 3] + p[2, 0]],
            [p[1, 2] + p[3, 0], 1.0 - p[1, 1] - p[3, 3], p[2, 3] - p[1, 0]],
            [p[1, 3] - p[2, 0], p[2, 3] + p[1, 0], 1.0 - p[1, 1] - p[2, 2]],
        ]
    )
