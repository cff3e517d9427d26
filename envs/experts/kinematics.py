"""Batched forward kinematics of an arm and damped least squares, compiled: an action costs less than its physics.

Positions in m, world frame; joint angles in rad. B is the batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.compiled import compiled
from envs.composuite.robots import GRIP_SITE, HAND_BODY, NUM_ARM_JOINTS
from envs.composuite.scene import physics_model
from offline_compositional_rl_datasets.composuite import AXES, CompoSuiteTask

_DAMPING = 1e-5
STRIDE = 0.55
"""Share of a Gauss-Newton step that is taken: whole ones swing round the solution for ever where an arm is stretched or
the hand is to lean against the way that it reaches, and stop centimetres from it."""

USUAL_EASE = np.array([1.1, 0.5, 5.0, 0.2, 2.6, 3.0, 2.5])
EASE = {"Panda": np.array([1.0, 0.5, 1.0, 0.2, 1.0, 1.0, 1.0])}
"""How willingly each joint moves, where an arm is quicker with values of its own than with the usual ones. All joints
have the same top speed, so a way is fast if they share it evenly."""

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
        tool, hand = np.empty((batch, 3)), np.empty((batch, 3, 3))
        jacobian = np.empty((batch, 6, NUM_ARM_JOINTS))
        for i in range(batch):
            _forward(self._chain, np.asarray(q[i], dtype=np.float64), tool[i], hand[i], jacobian[i])
        return tool, hand, jacobian

    def solve(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        softness: np.ndarray,
        start: np.ndarray,
        iterations: int = 12,
    ) -> np.ndarray:
        """(B, 7) joints that bring the tool to `position` (B, 3) and the hand to `rotation` (B, 3, 3).

        Damped Gauss-Newton steps, each cut short, for the least sum of the joints' moves from `start` (7,), weighed by
        their ease, and of the errors, the rotation's by `softness` (B,): the answer is a smooth function of the pose,
        and out of reach it stops short.
        """
        position, rotation, softness, start = (
            np.ascontiguousarray(x, dtype=np.float64) for x in (position, rotation, softness, start)
        )
        return _solve(self._chain, self.ease, position, rotation, softness, start, iterations)

    @functools.cached_property
    def _chain(self) -> tuple[np.ndarray, ...]:
        return (
            self.base_rotation,
            self.base_position,
            self.rotations,
            self.translations,
            self.axes,
            self.hand_rotation,
            self.tool_position,
        )


@compiled
def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a @ b, all (3, 3)."""
    for i in range(3):
        for j in range(3):
            out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]


@compiled
def _forward(
    chain: tuple[np.ndarray, ...], q: np.ndarray, tool: np.ndarray, hand: np.ndarray, jacobian: np.ndarray
) -> None:
    """Write tool position (3,), hand rotation (3, 3) and Jacobian (6, 7) at joints q (7,) into the last three."""
    base_rotation, base_position, rotations, translations, axes, hand_rotation, tool_position = chain
    rotation, turned, turn = base_rotation.copy(), np.empty((3, 3)), np.empty((3, 3))
    position = base_position.copy()
    origins = np.empty((NUM_ARM_JOINTS, 3))
    for joint in range(NUM_ARM_JOINTS):
        for i in range(3):
            for j in range(3):
                position[i] += rotation[i, j] * translations[joint, j]
        _multiply(rotation, rotations[joint], turned)
        origins[joint] = position
        x, y, z = axes[joint]
        for i in range(3):
            jacobian[3 + i, joint] = turned[i, 0] * x + turned[i, 1] * y + turned[i, 2] * z
        sin, cos = np.sin(q[joint]), np.cos(q[joint])
        rest = 1.0 - cos  # Rodrigues' formula
        turn[0] = (cos + rest * x * x, rest * x * y - sin * z, rest * x * z + sin * y)
        turn[1] = (rest * x * y + sin * z, cos + rest * y * y, rest * y * z - sin * x)
        turn[2] = (rest * x * z - sin * y, rest * y * z + sin * x, cos + rest * z * z)
        _multiply(turned, turn, rotation)
    for i in range(3):
        tool[i] = position[i]
        for j in range(3):
            tool[i] += rotation[i, j] * tool_position[j]
    _multiply(rotation, hand_rotation, hand)
    for joint in range(NUM_ARM_JOINTS):
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            jacobian[i, joint] = jacobian[3 + j, joint] * (tool[k] - origins[joint, k]) - jacobian[3 + k, joint] * (
                tool[j] - origins[joint, j]
            )


@compiled
def _solve(
    chain: tuple[np.ndarray, ...],
    ease: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    softness: np.ndarray,
    start: np.ndarray,
    iterations: int,
) -> np.ndarray:
    solutions = np.empty((len(position), NUM_ARM_JOINTS))
    tool, hand, jacobian = np.empty(3), np.empty((3, 3)), np.empty((6, NUM_ARM_JOINTS))
    error, gram = np.empty(6), np.empty((6, 6))
    for row in range(len(position)):
        q = start.copy()
        for _ in range(iterations):
            _forward(chain, q, tool, hand, jacobian)
            for i in range(3):
                error[i] = position[row, i] - tool[i]
                j, k = (i + 1) % 3, (i + 2) % 3
                error[3 + i] = 0.0
                for column in range(3):  # half the sum of the columns' cross products, as in `orientation_error`
                    error[3 + i] += 0.5 * (
                        hand[j, column] * rotation[row, k, column] - hand[k, column] * rotation[row, j, column]
                    )
            for i in range(6):
                for joint in range(NUM_ARM_JOINTS):
                    error[i] += jacobian[i, joint] * (q[joint] - start[joint])
                for j in range(6):
                    gram[i, j] = 0.0
                    for joint in range(NUM_ARM_JOINTS):
                        gram[i, j] += jacobian[i, joint] * ease[joint] * jacobian[j, joint]
                gram[i, i] += _DAMPING if i < 3 else SOFTNESS[i - 3] * softness[row]
            step = np.linalg.solve(gram, error)
            for joint in range(NUM_ARM_JOINTS):
                solution = start[joint]
                for i in range(6):
                    solution += ease[joint] * jacobian[i, joint] * step[i]
                q[joint] += STRIDE * (solution - q[joint])
        solutions[row] = q
    return solutions


def _turn(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(B, 3, 3) rotations about a fixed unit axis by angles (B,) (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    turn: np.ndarray = np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)
    return turn


@functools.cache
def arm_of(robot: str) -> Arm:
    """The kinematic chain of a robot, read from a compiled model (every task of a robot has the same)."""
    first = {axis: elements[0] for axis, elements in AXES.items()}
    model = physics_model(CompoSuiteTask(**{**first, "robot": robot}))
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
        ease=EASE.get(robot, USUAL_EASE),
    )


def orientation_error(current: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(B, 3) rotation vector (small angles) that turns `current` (B, 3, 3) into `wanted` (B, 3, 3)."""
    error: np.ndarray = 0.5 * np.cross(current, wanted, axisa=1, axisb=1, axisc=1).sum(axis=2)
    return error


def hand_rotation(tilt: np.ndarray, roll: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """(B, 3, 3) of a hand that points down, turned by angles (B,).

    `yaw` about the vertical, `tilt` back from its forward direction (the fingers then point forward), and `roll` about
    the world's x axis (the fingers then point to +y).
    """
    x, y, z = np.eye(3)
    turned: np.ndarray = _turn(x, roll) @ _turn(z, yaw) @ _turn(y, -tilt) @ np.diag([1.0, -1.0, -1.0])
    return turned
