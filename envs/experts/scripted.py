"""Scripted experts: a smooth, memoryless plan for tool and gripper, turned into joint commands.

An expert is composed as its task is: the objective says where the object should go and when to let go, the object
how it is grasped, the obstacle which way round to travel. Everything follows from the present observation through
smooth gates, never through switches, because the data must be clonable: a small network has to be able to represent
the action as a function of the state.

The joints move straight to the joint angles that solve for the tool's wanted pose. All of them move at once, and a
pose has one answer: that is fast, and easy to learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from envs.composuite.robots import BASE_POS, NUM_ARM_JOINTS, ROBOT_SPECS
from envs.experts.batch import check_batch
from envs.experts.gates import blend, gate, near
from envs.experts.grasps import GRASPS, Grasp, Way
from envs.experts.kinematics import arm_of, hand_rotation
from envs.experts.paths import APPROACH, BETWEEN_BINS, CARRY, Passage, expect_way
from envs.experts.postures import Posture, beside_walls, round_the_goal_wall
from envs.experts.targets import Aim, aim_of
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask, described

_FACTORS = COMPOSUITE.factor_slices


def _z_axis(quaternion: np.ndarray) -> np.ndarray:
    """(B, 3) z axis of what is turned by quaternions (B, 4) in the order x, y, z, w."""
    x, y, z, w = quaternion.T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


@dataclass(frozen=True)
class SceneFeatures:
    """What an expert sees of a batch of B states (positions (B, 3) in m, angles in rad)."""

    joints: np.ndarray  # (B, 7), each in [-pi, pi]
    tool: np.ndarray
    pointing: np.ndarray  # (B, 3) where the fingers point
    obj: np.ndarray
    axis: np.ndarray  # (B, 3) the object's own z axis: upright at the start
    in_hand: np.ndarray  # (B, 3) the object relative to the tool, in the hand's axes
    goal: np.ndarray
    opening: np.ndarray  # (B,) sum of finger travel (m): about 0.042 at the start, 0.023 when commanded open

    @property
    def uphill(self) -> np.ndarray:
        """(B, 3) along the object's own plane to its highest side: 0 while it stands upright."""
        x, y, z = self.axis.T
        up = np.stack([-z * x, -z * y, 1 - z * z], axis=1)
        uphill: np.ndarray = up / np.sqrt((up**2).sum(axis=1, keepdims=True) + 1e-3)
        return uphill

    @classmethod
    def of(cls, states: np.ndarray) -> SceneFeatures:
        obs = np.asarray(states, dtype=np.float64)
        check_batch(obs)
        proprio = obs[:, _FACTORS["proprioception"]]
        thing = obs[:, _FACTORS["object"]]
        return cls(
            joints=np.arctan2(proprio[:, NUM_ARM_JOINTS : 2 * NUM_ARM_JOINTS], proprio[:, :NUM_ARM_JOINTS]),
            tool=proprio[:, 21:24],
            pointing=_z_axis(proprio[:, 24:28]),
            obj=thing[:, 0:3],
            axis=_z_axis(thing[:, 3:7]),
            in_hand=thing[:, 7:10],
            goal=obs[:, _FACTORS["goal"]][:, 0:3],
            opening=proprio[:, 28] - proprio[:, 29],
        )


@dataclass(frozen=True)
class Pose:
    """Where the tool should go: position (B, 3), tilt, roll and yaw of the hand (B,), and how soft these are (B,)."""

    position: np.ndarray
    tilt: np.ndarray
    roll: np.ndarray
    yaw: np.ndarray
    softness: np.ndarray

    def towards(self, other: Pose, weight: np.ndarray) -> Pose:
        """This pose where `weight` (B,) is 0, `other` where it is 1."""
        return Pose(
            blend(weight, self.position, other.position),
            blend(weight, self.tilt, other.tilt),
            blend(weight, self.roll, other.roll),
            blend(weight, self.yaw, other.yaw),
            blend(weight, self.softness, other.softness),
        )

    def bent(self, posture: Posture) -> Pose:
        """The same place, the hand turned as a posture asks."""
        return Pose(
            self.position,
            self.tilt + posture.tilt,
            self.roll + posture.roll,
            self.yaw + posture.yaw,
            self.softness * posture.softness,
        )


class ScriptedExpert:
    """The expert of one task: states (B, 77) to actions (B, 8) in [-1, 1]."""

    gain = 14.0
    """Joint command per rad: a lower one makes the action a gentler function of the state, but then a small error of a
    clone's action is a large error of where it stops."""
    yaw_gain = 0.8
    """How far the hand turns with the direction from the arm's base: less than the arm turns, for short ways."""

    def __init__(self, task: CompoSuiteTask) -> None:
        self.task = task
        self.arm = arm_of(task.robot)
        self.home = np.array(described(ROBOT_SPECS, task, "robot", "envs/composuite/robots.py").initial_qpos)
        self.posture: Posture = beside_walls(task)
        self.carry_posture: Posture = round_the_goal_wall(task)
        self.grasp: Grasp = described(GRASPS, task, "object", "envs/experts/grasps.py")
        self.aim: Aim = aim_of(task)
        expect_way(task)
        approach = APPROACH.get(task.obstacle)
        self.approach_passage: Passage | None = approach and replace(approach, end=approach.end + self.grasp.behind)
        self.lead = min(self.posture.lead, self.carry_posture.lead)
        passage = CARRY.get(task.obstacle, BETWEEN_BINS)
        self.carry_passage: Passage = replace(passage, end=passage.end + self.carry_posture.berth)

    def __call__(self, states: np.ndarray) -> np.ndarray:
        scene = SceneFeatures.of(states)
        pose, close = self.plan(scene)
        return np.concatenate([self._joint_command(scene, pose), close[:, None]], axis=1).astype(np.float32)

    def plan(self, scene: SceneFeatures) -> tuple[Pose, np.ndarray]:
        """Where the tool should be now, and the gripper command (B,) in [-1, 1]."""
        grasp = self.grasp
        pose, at_point = self._approach(scene, grasp.way)
        if grasp.topple:
            lies = self._lies(scene)
            pose = self._approach(scene, grasp.topple)[0].towards(pose, lies)
            at_point = at_point * lies
        hang = np.linalg.norm(scene.in_hand - np.array(grasp.in_hand), axis=1)
        held = gate(grasp.held_opening - scene.opening, 0.002) * gate(grasp.keep - hang, 0.006)

        carry, release = self._carry(scene)
        pose = pose.towards(carry, held).towards(self._wait(scene), release)
        pose = pose.bent(self.posture)
        closing = (1 - (1 - at_point) * (1 - held)) * (1 - release)
        return pose, np.clip(3.0 * (2.0 * closing - 1.0), -1.0, 1.0)

    def _yaw(self, position: np.ndarray) -> np.ndarray:
        """(B,) of the hand at positions (B, 3)."""
        return self.yaw_gain * np.arctan2(position[:, 1] - BASE_POS[1], position[:, 0] - BASE_POS[0])

    def _lies(self, scene: SceneFeatures) -> np.ndarray:
        """(B,) 0 the object stands upright .. 1 it was pushed over."""
        return gate(self.grasp.tips - np.abs(scene.axis[:, 2]), self.grasp.tips_width)

    def _grasp_yaw(self, scene: SceneFeatures) -> np.ndarray:
        """(B,) of the hand at the object: that of the place, for a lying object along its axis."""
        yaw = self._yaw(scene.obj) * self.grasp.turn
        if not self.grasp.lengthwise:
            return yaw
        x, y, _ = scene.axis.T
        lying = np.clip(np.arctan(y / np.where(np.abs(x) < 1e-6, 1e-6, x)), -0.7, 0.7)
        return blend(self._lies(scene), yaw, lying)

    def _approach(self, scene: SceneFeatures, way: Way) -> tuple[Pose, np.ndarray]:
        """To the object along a way, through a funnel that is narrow near it; and how surely it is there (B,)."""
        point = scene.obj + np.array(way.point) + way.rim * scene.uphill
        tilt, roll = (np.full(len(point), angle) for angle in (way.tilt, way.roll))
        if way.rim:
            roll = roll * scene.uphill[:, 1]
        yaw = self._grasp_yaw(scene)
        if way.along is None:
            along = hand_rotation(tilt, roll, yaw)[:, :, 2]
        else:
            along = np.broadcast_to(np.array(way.along) / np.linalg.norm(way.along), point.shape)
        away = scene.tool - point
        back = -(away * along).sum(axis=1)
        side = np.linalg.norm((away + back[:, None] * along) * np.array(way.weights), axis=1)
        at_point = gate(self.grasp.reach[0] - side, 0.004) * gate(self.grasp.reach[1] - np.abs(back), 0.004)
        target = point - (way.clearance * (1 - near(side, way.funnel)))[:, None] * along
        if way.along:
            # Past the start of a way along the table, but beside it: over the object, not through it.
            short = way.clearance - back
            off = gate(short - 0.02, 0.004)
            if way.descent:
                beside = np.linalg.norm((away + back[:, None] * along)[:, :2], axis=1)
                off = gate(np.hypot(beside, np.maximum(short, 0.0)) - way.descent, 0.003)
            target[:, 2] += 0.05 * off * gate(side - 1.4 * way.funnel, 0.002)
        pose = Pose(target, tilt, roll, yaw, np.full(len(point), way.softness))
        if self.approach_passage:
            passing = self.approach_passage.before(scene.tool)
            through = self.approach_passage.via(scene.tool, target, berth=self.posture.berth)
            pose = pose.towards(Pose(through, 0.05 + 0 * tilt, 0 * roll, self._yaw(through), 1 + 0 * tilt), passing)
        return pose, at_point

    def _carry(self, scene: SceneFeatures) -> tuple[Pose, np.ndarray]:
        """Tool pose that brings the held object to its end, and how far the object should be let go (B,)."""
        end = self.aim.end(scene.goal, self.grasp.depth, self.grasp.slack)
        away = np.linalg.norm(end[:, :2] - scene.obj[:, :2], axis=1)
        target = end.copy()
        target[:, 2] = self.aim.height(end, away, self.grasp.depth)
        if self.aim.passage:
            ready = gate(scene.pointing[:, 1] - self.aim.pointing, 0.04)
            target = self.aim.passage.via(scene.obj, target, room=0.02, ready=ready)
        target = self.carry_passage.via(scene.obj, target, room=self.aim.rise)
        turned = self.aim.turned(away)
        tilt = self.grasp.way.tilt + turned * (self.aim.tilt - self.grasp.way.tilt)
        roll = self.grasp.way.roll + turned * (self.aim.roll - self.grasp.way.roll)
        softness = self.grasp.way.softness + turned * (self.aim.softness - self.grasp.way.softness)
        yaw = self._yaw(target) * (1 - turned if self.aim.straight else 1)
        pose = Pose(target + (scene.tool - scene.obj), tilt, roll, yaw, softness)
        return pose.bent(self.carry_posture), self.aim.release(end, scene.obj, self.grasp.slack)

    def _wait(self, scene: SceneFeatures) -> Pose:
        """Where the tool waits after letting go: above the goal."""
        position = np.concatenate([scene.goal[:, :2], np.full((len(scene.goal), 1), self.aim.rest)], axis=1)
        tilt = np.full(len(position), self.aim.tilt)
        return Pose(position, tilt, np.zeros_like(tilt), self._yaw(position), np.ones_like(tilt))

    def _joint_command(self, scene: SceneFeatures, pose: Pose) -> np.ndarray:
        """(B, 7) joint commands straight to the joints that solve for the pose, scaled as a whole to fit."""
        rotation = hand_rotation(pose.tilt, pose.roll, pose.yaw)
        wanted = self.arm.solve(pose.position, rotation, pose.softness, self.home)
        step = np.remainder(wanted - scene.joints + np.pi, 2 * np.pi) - np.pi
        command = self.gain * step
        scale = np.maximum(1.0, np.abs(command).max(axis=1, keepdims=True) / self.lead)
        return np.asarray(np.clip(command / scale, -1.0, 1.0))
