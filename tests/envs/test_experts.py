"""The scripted experts: kinematics, smoothness, and that each part of the composition works on the simulator."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import envs
from envs.composuite.robots import ROBOT_SPECS
from envs.experts import expert_for
from envs.experts.grasps import GRASPS
from envs.experts.kinematics import SOFTNESS, STRIDE, arm_of, hand_rotation, orientation_error
from envs.experts.targets import AIMS
from envs.pool import EnvPool
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.composuite import ROBOTS, CompoSuiteTask, all_tasks


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


@pytest.mark.parametrize("robot", ROBOTS)
def test_inverse_kinematics_converges_for_an_arm_that_is_stretched_and_a_hand_that_must_stay_upright(robot):
    arm, home = arm_of(robot), np.array(ROBOT_SPECS[robot].initial_qpos)
    position = np.array(list(itertools.product((0.06, 0.15, 0.27), (-0.38, -0.1, 0.2), (0.87, 0.95, 1.05))))
    angles = np.zeros((3, len(position)))
    joints = arm.solve(position, hand_rotation(*angles), np.full(len(position), 0.3), home)
    np.testing.assert_allclose(arm.forward(joints)[0], position, atol=3e-3)


def test_compiled_inverse_kinematics_equals_the_same_steps_in_numpy():
    arm, home = arm_of("Panda"), np.array(ROBOT_SPECS["Panda"].initial_qpos)
    rng = np.random.default_rng(1)
    position = rng.uniform((0.0, -0.35, 0.85), (0.2, 0.3, 1.1), (5, 3))
    softness = rng.uniform(0.05, 1.0, 5)
    rotation = hand_rotation(*rng.uniform(-0.3, 0.3, (3, 5)))
    q = np.repeat(home[None], 5, axis=0)
    for _ in range(3):
        tool, hand, jacobian = arm.forward(q)
        error = np.concatenate([position - tool, orientation_error(hand, rotation)], axis=1)
        error += np.einsum("bij,bj->bi", jacobian, q - home)
        damping = np.concatenate([np.full((5, 3), 1e-5), softness[:, None] * SOFTNESS], axis=1)
        gram = (jacobian * arm.ease) @ jacobian.transpose(0, 2, 1) + damping[:, :, None] * np.eye(6)
        step = arm.ease * np.einsum("bij,bi->bj", jacobian, np.linalg.solve(gram, error[..., None])[..., 0])
        q += STRIDE * (home + step - q)
    np.testing.assert_allclose(arm.solve(position, rotation, softness, home, iterations=3), q, atol=1e-9)


def test_every_task_has_an_expert_that_answers_within_the_limits():
    for robot in ROBOTS:
        observation, _ = envs.make(CompoSuiteTask(robot, "Box", "None", "PickPlace")).reset(seed=0)
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
    task = CompoSuiteTask.parse(name)
    group = EnvPool(task, 2, horizon=240)
    expert, observations = expert_for(task), group.reset([0, 1])
    solved = np.zeros(2, dtype=bool)
    for _ in range(240):
        observations, _, _, _, success = group.step(expert(observations))
        solved |= success
        if solved.all():
            break
    assert solved.all()


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("IIWA_Dumbbell_GoalWall_PickPlace", 0),  # the finger comes down behind the disc, not on it
        ("IIWA_Dumbbell_ObjectWall_Trashcan", 10),  # a lying bar is dropped where it fits
        ("Kinova3_Box_ObjectDoor_Push", 0),  # hands pass the posts
        ("Panda_Box_ObjectDoor_PickPlace", 0),
        ("Panda_Hollowbox_ObjectWall_Push", 0),  # wrists pass the walls
        ("Jaco_Box_GoalWall_Push", 0),
        ("Jaco_Hollowbox_GoalWall_Push", 0),  # an arm that sags under its load does not wait to rise for ever
        ("Jaco_Dumbbell_None_Trashcan", 4),  # a lying bar's discs clear the walls of can and bin
        ("Panda_Dumbbell_GoalWall_PickPlace", 0),  # the forearm passes the goal wall, the stretched arm reaches down
        ("Panda_Hollowbox_ObjectWall_Trashcan", 4),  # the finger comes down inside, not on the front wall
        ("Jaco_Plate_ObjectDoor_Push", 1628893701),  # no finger comes to rest on the disc
        ("Panda_Plate_ObjectWall_Shelf", 1248049870),
    ],
)
def test_experts_do_not_get_stuck_where_they_once_did(name, seed):
    task = CompoSuiteTask.parse(name)
    environment, expert = envs.make(task, horizon=450), expert_for(task)
    observation, _ = environment.reset(seed=seed)
    done = solved = False
    while not (done or solved):
        observation, _, terminated, truncated, info = environment.step(expert(observation[None])[0])
        done, solved = terminated or truncated, info["success"]
    assert solved


@pytest.mark.parametrize("name", GRASPS)
def test_an_object_that_dropped_into_the_can_is_left_alone_wherever_in_it_it_lies(name):
    aim, grasp = AIMS["Trashcan"], GRASPS[name]
    end = aim.end(np.array([[0.1, 0.18, 0.86]]), grasp.depth, grasp.slack)
    lying = end + np.array([0.04, 0.04, 0.88 - end[0, 2]])
    assert aim.release(end, lying, grasp.slack)[0] > 0.9
    carried = end - np.array([0.0, 0.15, 0.0])
    assert aim.release(end, carried, grasp.slack)[0] < 0.01


def test_a_dumbbell_thrown_off_its_path_round_the_goal_wall_still_gets_onto_the_shelf():
    task = CompoSuiteTask.parse("IIWA_Dumbbell_GoalWall_Shelf")
    runs = record(task, CollectConfig(horizon=600), [8, 10, 14], expert_for(task))
    assert all(run.success for run in runs)
