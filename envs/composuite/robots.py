"""The four arms with the Rethink gripper and mount, taken unchanged from robosuite's models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import TaskError

if TYPE_CHECKING:
    from robosuite.models.robots import RobotModel

BASE_POS = (-0.5, -0.1, 0.0)
GRIPPER_OPEN_QPOS = (0.020833, -0.020833)
NUM_ARM_JOINTS = 7

HAND_BODY = "robot0_right_hand"
GRIP_SITE = "gripper0_grip_site"
LEFT_PAD = ("gripper0_l_fingerpad_g0",)
RIGHT_PAD = ("gripper0_r_fingerpad_g0",)
LEFT_FINGER = ("gripper0_l_finger_g0", "gripper0_l_finger_g1", "gripper0_l_fingertip_g0", *LEFT_PAD)
RIGHT_FINGER = ("gripper0_r_finger_g0", "gripper0_r_finger_g1", "gripper0_r_fingertip_g0", *RIGHT_PAD)


@dataclass(frozen=True)
class RobotSpec:
    """`initial_qpos` (7,) rad, as the benchmark starts each episode.

    `touching`: pairs of the arm's own bodies that lie in each other as they are built, whose contacts are left out.
    Raises `TaskError` for another number of joints.
    """

    initial_qpos: tuple[float, ...]
    touching: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.initial_qpos) != NUM_ARM_JOINTS:
            raise TaskError(
                f"a start pose of {len(self.initial_qpos)} joints: CompoSuite's observations and actions have "
                f"{NUM_ARM_JOINTS}, an arm with others needs a layout of its own"
            )


ROBOT_SPECS = {
    "IIWA": RobotSpec((0.0, 0.65, 0.0, -1.89, 0.0, 0.6, 0.0)),
    "Jaco": RobotSpec((3.192, 3.680, 0.0, 1.170, 0.05, 3.760, 3.142)),
    "Kinova3": RobotSpec((0.0, 0.65, 0.0, 1.89, 0.0, 0.6, -np.pi / 2)),
    "Panda": RobotSpec((0.0, np.pi / 16.0, 0.0, -np.pi / 2.0 - np.pi / 3.0, 0.0, np.pi - 0.2, np.pi / 4)),
}


def robot_model(name: str) -> RobotModel:
    """robosuite's arm with its mount and gripper, placed at the "bins" position (imports robosuite).

    Raises `TaskError` for an arm that robosuite does not have, or one of another number of joints.
    """
    from robosuite.models.grippers import gripper_factory
    from robosuite.models.mounts import mount_factory
    from robosuite.models.robots import create_robot
    from robosuite.models.robots.robot_model import REGISTERED_ROBOTS

    if name not in REGISTERED_ROBOTS:
        raise TaskError(f"robot {name!r}: robosuite has {', '.join(sorted(REGISTERED_ROBOTS))}")
    robot = create_robot(name, idn=0)
    if robot.dof != NUM_ARM_JOINTS:
        raise TaskError(f"robot {name!r} has {robot.dof} joints, expected {NUM_ARM_JOINTS}")
    robot.add_mount(mount_factory(robot.default_mount, idn=0))
    robot.add_gripper(gripper_factory("RethinkGripper", idn=0))
    robot.set_base_xpos(np.array(BASE_POS))
    return robot
