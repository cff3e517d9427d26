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
    substeps: int, model: int, data: int, sites: np.ndarray, first_q: np.ndarray, first_v: np.ndarray,
    first_ctrl: np.ndarray, delta: np.ndarray, keeps_orientation: bool, finger_steps: np.ndarray,
    goal_position: np.ndarray, goal_rotation: np.ndarray, gripper: np.ndarray, rest_pose: np.ndarray,
    first_mass: np.ndarray, kp: np.ndarray, kd: np.ndarray, qpos: np.ndarray, qvel: np.ndarray, qfrc_bias: np.ndarray,
    qM: np.ndarray, mass_rows: np.ndarray, site_xpos: np.ndarray, site_xmat: np.ndarray, ctrl: np.ndarray,
    low: np.ndarray, high: np.ndarray, middle: np.ndarray, half: np.ndarray, jacobian: np.ndarray,
) -> None:  # fmt: skip
    """`substeps` physics steps with the hands drawn to their goals; kinematics are those of the new state at the end.

    Of A arms, each of which has 7 joints in a row and then 2 fingers, among positions, velocities and actuators, from
    `first_q`, `first_v` and `first_ctrl` (A,) on. `delta` (A, 6) sets the goals from the hands' poses in the first
    substep: metres, and axis times radians, of which exactly zero keeps the former orientation with
    `keeps_orientation`, else the present one. `finger_steps` (A, 2) close the fingers in the first substep and in each
    later one. `goal_position` (A, 3), `goal_rotation` (A, 3, 3) and `gripper` (A, 2), the command of the fingers in
    [-1, 1], are kept up to date. `first_mass` (A, 7, 7) stands for the arm's mass matrix once, unless it is
    not-a-number. `qpos`, `qvel`, `qfrc_bias`, `site_xpos`, `site_xmat` (sites, 9), `ctrl` and `qM` are views of
    `data`'s memory; `mass_rows` (A, 7) says where each arm joint's row of the mass matrix starts in `qM`. `middle` and
    `half` (A, 2) turn the fingers' command into positions. `jacobian` (6, nv) is scratch.
    """
    J, mass = np.empty((6, NUM_JOINTS)), np.empty((NUM_JOINTS, NUM_JOINTS))
    for substep in range(substeps):
        mj_step1(model, data)
        for arm in range(len(sites)):
            site, v, u = sites[arm], first_v[arm], first_ctrl[arm]
            q, qd = qpos[first_q[arm] : first_q[arm] + NUM_JOINTS], qvel[v : v + NUM_JOINTS]
            position, rotation = site_xpos[site], site_xmat[site].reshape(3, 3)
            if substep == 0:
                goal_position[arm] = position + delta[arm, :3]
                if delta[arm, 3] != 0 or delta[arm, 4] != 0 or delta[arm, 5] != 0:
                    goal_rotation[arm] = rotation_matrix(delta[arm, 3:]) @ rotation
                elif not keeps_orientation:
                    goal_rotation[arm] = rotation
            mj_jacSite(model, data, jacobian.ctypes.data, jacobian[3:].ctypes.data, site)
            J[:] = jacobian[:, v : v + NUM_JOINTS]
            # MuJoCo keeps row i of the lower triangle from the diagonal towards the base.
            for i in range(NUM_JOINTS):
                for j in range(i + 1):
                    mass[i, j] = mass[j, i] = qM[mass_rows[arm, i] + i - j]
            if substep == 0 and not np.isnan(first_mass[arm, 0, 0]):
                mass[:] = first_mass[arm]
                first_mass[arm] = np.nan
            torque = operational_space_torque(
                J,
                mass,
                q,
                qd,
                position,
                rotation,
                goal_position[arm],
                goal_rotation[arm],
                rest_pose[arm],
                kp[arm],
                kd[arm],
            )
            for i in range(NUM_JOINTS):
                ctrl[u + i] = min(max(torque[i] + qfrc_bias[v + i], low[arm, i]), high[arm, i])
            step = finger_steps[arm, 0] if substep == 0 else finger_steps[arm, 1]
            for finger in range(2):
                moved = gripper[arm, finger] - step if finger == 0 else gripper[arm, finger] + step
                gripper[arm, finger] = max(min(moved, 1.0), -1.0)
                ctrl[u + NUM_JOINTS + finger] = middle[arm, finger] + half[arm, finger] * gripper[arm, finger]
        mj_step2(model, data)
    mj_kinematics(model, data)


@compiled
def operational_space_torque(
    J: np.ndarray, mass: np.ndarray, q: np.ndarray, qd: np.ndarray, position: np.ndarray, rotation: np.ndarray,
    goal_position: np.ndarray, goal_rotation: np.ndarray, rest_pose: np.ndarray, kp: np.ndarray, kd: np.ndarray,
) -> np.ndarray:  # fmt: skip
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
def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
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
def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
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
