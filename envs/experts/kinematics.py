"""Batched forward kinematics of an arm and damped least squares, in numpy.

Positions in m, world frame; joint angles in rad. B is the batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.composuite.robots import GRIP_SITE, HAND_BODY, NUM_ARM_JOINTS
from envs.composuite.scene import physics_model
from offline_compositional_rl_datasets.task import Task

_DAMPING = 1e-5

_EASE = np.array([1.1, 0.5, 5.0, 0.2, 2.6, 3.0, 2.5])
EASE = {
    "IIWA": _EASE,
    "Jaco": _EASE,
    "Kinova3": _EASE,
    "Panda": np.array([1.0, 0.5, 1.0, 0.2, 1.0, 1.0, 1.0]),
}
"""How willingly each joint moves. All joints have the same top speed, so a way is fast if they share it evenly. (With
the others' values Panda's elbow, beside its axis, would not converge.)"""

SOFTNESS = np.array([0.1, 0.1, 0.005])
"""How readily the hand leaves its wanted rotation about the world's x, y, z axes to spare the joints: as it leans the
way that the arm reaches anyway, a way takes a fifth less time."""


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


@dataclass(frozen=True)
class Arm:
    """A serial chain: per joint the fixed transform from its parent (rotation, translation) and its axis."""

    base_rotation: np.ndarray  # (3, 3)
    base_position: np.ndarray  # (3,)
    rotations: np.ndarray  # (7, 3, 3)
    translations: np.ndarray  # (7, 3)
    axes: np.ndarray  # (7, 3)
    hand_rotation: np.ndarray  # (3, 3) hand body in the last link
    tool_position: np.ndarray  # (3,) grip site in the last link
    ease: np.ndarray  # (7,)

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tool position (B, 3), hand rotation (B, 3, 3) and geometric Jacobian (B, 6, 7) at joints q (B, 7)."""
        batch = len(q)
        rotation = np.broadcast_to(self.base_rotation, (batch, 3, 3))
        position = np.broadcast_to(self.base_position, (batch, 3))
        origins = np.empty((batch, NUM_ARM_JOINTS, 3))
        axes = np.empty((batch, NUM_ARM_JOINTS, 3))
        for i in range(NUM_ARM_JOINTS):
            position = position + rotation @ self.translations[i]
            rotation = rotation @ self.rotations[i]
            origins[:, i] = position
            axes[:, i] = rotation @ self.axes[i]
            rotation = rotation @ _turn(self.axes[i], q[:, i])
        tool = position + rotation @ self.tool_position
        jacobian = np.concatenate([np.cross(axes, tool[:, None] - origins), axes], axis=2).transpose(0, 2, 1)
        return tool, rotation @ self.hand_rotation, jacobian

    def solve(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        softness: np.ndarray,
        start: np.ndarray,
        iterations: int = 7,
    ) -> np.ndarray:
        """(B, 7) joints that bring the tool to `position` (B, 3) and the hand to `rotation` (B, 3, 3).

        Damped Gauss-Newton steps for the least sum of the joints' moves from `start` (7,), weighed by their ease, and
        of the errors, the rotation's by `softness` (B,): the answer is a smooth function of the pose, and out of
        reach it stops short.
        """
        q = np.repeat(start[None], len(position), axis=0)
        damping = np.zeros((len(position), 6, 6))
        damping[:, range(3), range(3)] = _DAMPING
        damping[:, range(3, 6), range(3, 6)] = SOFTNESS * softness[:, None]
        for _ in range(iterations):
            tool, hand, jacobian = self.forward(q)
            error = np.concatenate([position - tool, orientation_error(hand, rotation)], axis=1)
            error = error + np.einsum("bij,bj->bi", jacobian, q - start)
            eased = jacobian * self.ease
            gram = eased @ jacobian.transpose(0, 2, 1) + damping
            q = start + np.einsum("bij,bi->bj", eased, np.linalg.solve(gram, error[..., None])[..., 0])
        return q


def _turn(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(B, 3, 3) rotations about a fixed unit axis by angles (B,) (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)


@functools.cache
def arm_of(robot: str) -> Arm:
    """The kinematic chain of a robot, read from a compiled model (every task of a robot has the same)."""
    model = physics_model(Task(robot, "Box", "None", "PickPlace"))
    data = mujoco.MjData(model)
    bodies = [int(model.jnt_bodyid[i]) for i in range(NUM_ARM_JOINTS)]
    mujoco.mj_kinematics(model, data)
    base = int(model.body_parentid[bodies[0]])
    last = bodies[-1]
    hand, site = model.body(HAND_BODY).id, model.site(GRIP_SITE).id
    last_rotation = data.xmat[last].reshape(3, 3)
    return Arm(
        base_rotation=data.xmat[base].reshape(3, 3).copy(),
        base_position=data.xpos[base].copy(),
        rotations=np.array([_matrix(model.body_quat[body]) for body in bodies]),
        translations=model.body_pos[bodies].copy(),
        axes=model.jnt_axis[:NUM_ARM_JOINTS].copy(),
        hand_rotation=last_rotation.T @ data.xmat[hand].reshape(3, 3),
        tool_position=last_rotation.T @ (data.site_xpos[site] - data.xpos[last]),
        ease=EASE[robot],
    )


def orientation_error(current: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(B, 3) rotation vector (small angles) that turns `current` (B, 3, 3) into `wanted` (B, 3, 3)."""
    return 0.5 * np.cross(current, wanted, axisa=1, axisb=1, axisc=1).sum(axis=2)


def hand_rotation(tilt: np.ndarray, roll: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(B, 3, 3) of a hand that points down, turned by angles (B,).

    `yaw` about the vertical, `tilt` back from its forward direction (the fingers then point forward), and `roll` about
    the world's x axis (the fingers then point to +y).
    """
    x, y, z = np.eye(3)
    return _turn(x, roll) @ _turn(z, yaw) @ _turn(y, -tilt) @ np.diag([1.0, -1.0, -1.0])
