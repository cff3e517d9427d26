"""The scripted experts: kinematics, smoothness, and that each part of the composition works on the simulator."""

from __future__ import annotations

import numpy as np
import pytest

import envs
from envs.composuite.robots import ROBOT_SPECS
from envs.experts import expert_for
from envs.experts.kinematics import arm_of, hand_rotation
from envs.vector import EnvGroup
from offline_compositional_rl_datasets.task import ROBOTS, Task, all_tasks


@pytest.mark.parametrize("robot", ROBOTS)
def test_inverse_kinematics_reaches_the_table_and_answers_smoothly(robot):
    arm, home = arm_of(robot), np.array(ROBOT_SPECS[robot].initial_qpos)
    rng = np.random.default_rng(0)
    position = rng.uniform((0.03, -0.35, 0.87), (0.17, 0.15, 1.0), (20, 3))
    angles = (np.full(20, 0.05), np.zeros(20), rng.uniform(-0.3, 0.3, 20))

    def solve(points):
        return arm.solve(points, hand_rotation(*angles), np.ones(20), home)

    joints = solve(position)
    np.testing.assert_allclose(arm.forward(joints)[0], position, atol=2e-3)
    assert np.abs(solve(position + 1e-3) - joints).max() < 0.02


def test_every_task_has_an_expert_that_answers_within_the_limits():
    for robot in ROBOTS:
        observation, _ = envs.make(Task(robot, "Box", "None", "PickPlace")).reset(seed=0)
        for task in all_tasks():
            if task.robot == robot:
                action = expert_for(task)(observation[None])
                assert action.shape == (1, 8)
                assert np.abs(action).max() <= 1, task


@pytest.mark.parametrize(
    "name",
    [
        "IIWA_Box_ObjectDoor_Trashcan",
        "IIWA_Box_GoalWall_Push",
        "IIWA_Hollowbox_ObjectWall_Shelf",
        "IIWA_Plate_GoalWall_Trashcan",
        "IIWA_Dumbbell_None_Push",
        "Kinova3_Box_None_PickPlace",
        "Jaco_Hollowbox_GoalWall_Trashcan",
        "Panda_Plate_None_Push",
    ],
)
def test_experts_of_each_part_solve_their_task_in_half_an_episode(name):
    task = Task.parse(name)
    group = EnvGroup(task, 2, {"horizon": 240})
    expert, observations = expert_for(task), group.reset([0, 1])
    solved = np.zeros(2, dtype=bool)
    for _ in range(240):
        observations, _, _, _, success = group.step(expert(observations))
        solved |= success
        if solved.all():
            break
    assert solved.all()
