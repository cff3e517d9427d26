"""Copies, pickles and snapshots of environments: the same bits as the original, and nothing shared with it."""

import copy
import json
import multiprocessing
import pickle
from functools import cache

import gymnasium
import numpy as np
import pytest
import torch

import envs
from envs.pool import EnvPool
from envs.robomimic.task import RobomimicTask
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from runtime.errors import DataError

COMPOSUITE = ["IIWA_Plate_ObjectWall_Shelf", "Kinova3_Box_None_Push", "Panda_Hollowbox_ObjectDoor_PickPlace"]
ROBOMIMIC = ["lift", "can", "square", "can of robosuite 1.5"]
ALL = COMPOSUITE + ROBOMIMIC


def _new(name):
    """With all observations that there are: some are made of Jacobians, some of the step before."""
    if name in COMPOSUITE:
        return envs.make(name)
    task = RobomimicTask.standard(*name.split(" of robosuite "))
    return envs.make(task, keys=tuple(task.observation_dims))


_made = cache(_new)


def _under_way(name, *, seed=4, steps=25, make=_made):
    """An environment in the middle of an episode, with contacts and the gripper's command on its way."""
    env = make(name)
    env.reset(seed=seed)
    random = np.random.default_rng(seed)
    for step in range(steps):
        action = random.uniform(-1, 1, env.action_space.shape)
        if name in COMPOSUITE and step < 20:
            action = _reach(env)
        action[-1] = 1.0 if step > steps - 3 else -1.0
        env.step(action)
    return env


def _reach(env):
    from envs.experts import expert_for

    return expert_for(env.task)(env.observation()[None])[0].astype(float)


def _onward(env, steps=12):
    """Everything that an environment says from here: observations, rewards, info, and the next two starts."""
    random, told = np.random.default_rng(9), [env.observation()]
    for _ in range(steps):
        observation, *rest = env.step(random.uniform(-1, 1, env.action_space.shape))
        told += [observation, np.array([float(value) for value in (*rest[:3], *rest[3].values())])]
    for _ in range(2):
        told += [env.reset()[0], np.array([env.np_random_seed])]
    return told


def _expect_equal(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


_COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
}


@pytest.mark.parametrize("how", _COPIES)
@pytest.mark.parametrize("name", ALL)
def test_a_copy_steps_to_the_same_bits_as_its_original_and_does_not_disturb_it(name, how):
    env = _under_way(name)
    other, third = _COPIES[how](env), _COPIES[how](env)
    assert other.steps == env.steps
    alone = _onward(other)
    moved = [seen for seen in alone if len(seen) == len(alone[0])]
    assert np.abs(moved[-1] - moved[0]).max() > 1e-3
    # The original waited meanwhile, and now takes turns with another copy that does other things.
    random, told = np.random.default_rng(9), [env.observation()]
    for _ in range(12):
        observation, *rest = env.step(random.uniform(-1, 1, env.action_space.shape))
        told += [observation, np.array([float(value) for value in (*rest[:3], *rest[3].values())])]
        third.step(third.action_space.sample())
    third.reset(seed=1)
    for _ in range(2):
        told += [env.reset()[0], np.array([env.np_random_seed])]
        third.reset()
    _expect_equal(told, alone)


@pytest.mark.parametrize("name", COMPOSUITE)
def test_a_copy_judges_at_once_as_its_original(name):
    env = _under_way(name)
    other = copy.deepcopy(env)
    np.testing.assert_array_equal(other.full_observation(), env.full_observation())
    one, two = env.situation(), other.situation()
    assert one.grasped == two.grasped
    assert env.simulation.data.ncon == other.simulation.data.ncon > 0
    for field in ("obj", "tool", "goal", "hand_matrix"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


def test_a_copy_at_the_start_has_the_mass_matrix_of_the_first_substep():
    env = envs.make(COMPOSUITE[0])
    env.reset(seed=0)
    other = copy.deepcopy(env)
    _expect_equal(_onward(other), _onward(env))


@pytest.mark.parametrize("name", [COMPOSUITE[0], "lift"])
def test_a_copy_before_the_first_reset_and_after_the_end_needs_a_reset(name):
    env = envs.make(name, horizon=2)
    idle = np.zeros(env.action_space.shape)
    for _ in range(2):
        with pytest.raises(gymnasium.error.ResetNeeded):
            copy.deepcopy(env).step(idle)
        env.reset(seed=0)
        env.step(idle)
        assert copy.deepcopy(env).step(idle)[3], "the copy has the horizon and the step count of its original"
        env.step(idle)


@pytest.mark.parametrize("name", [COMPOSUITE[0], "square"])
def test_an_environment_goes_on_from_a_snapshot_however_often(name):
    env = _under_way(name)
    snapshot = env.snapshot()
    kept = copy.deepcopy(snapshot)
    first = _onward(env)
    other = _new(name)
    other.reset(seed=77)
    for each in (env, other, env):
        each.restore(snapshot)
        _expect_equal(_onward(each), first)
    assert str(snapshot) == str(kept), "what an environment does later does not reach a snapshot"


def test_a_snapshot_is_saved_and_read_without_trust(tmp_path):
    from dsrl.steering import _of_tensors

    env = _under_way(COMPOSUITE[0])
    torch.save(_of_tensors(env.snapshot()), tmp_path / "snapshot.pt")
    first = _onward(env)
    env.restore(torch.load(tmp_path / "snapshot.pt", weights_only=True))
    _expect_equal(_onward(env), first)


def test_a_snapshot_of_another_task_or_none_is_refused():
    env = _under_way(COMPOSUITE[0])
    with pytest.raises(DataError, match="snapshot of task 'Kinova3_Box_None_Push', expected"):
        env.restore(_under_way(COMPOSUITE[1]).snapshot())
    good = env.snapshot()
    moved = good["placement"] + 0.1
    for one, other in (("can", "can of robosuite 1.5"), ("can of robosuite 1.5", "can")):
        with pytest.raises(DataError, match="made with other env_args"):
            _under_way(one, steps=1).restore(_under_way(other, steps=1).snapshot())
    for wrong in (
        {key: value for key, value in good.items() if key != "state"},
        good | {"state": good["state"][:-1]},
        good | {"gripper": np.zeros(5)},
        good | {"random": None},
        good | {"placement": moved},
    ):
        with pytest.raises(DataError, match="not a snapshot"):
            env.restore(wrong)
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.zeros(8))
    env.restore(good)
    env.step(np.zeros(8))


@pytest.mark.parametrize("name", ["CompoSuite/IIWA_Box_None_PickPlace-v0"])
def test_wrappers_are_copied_with_the_environment(name):
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(name))
    env.reset(seed=0)
    action = np.full(8, 0.3, np.float32)
    env.step(action)
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert other.spec == env.spec
        original = copy.deepcopy(env)
        for _ in range(3):
            np.testing.assert_array_equal(other.step(action)[0], original.step(action)[0])


def test_environments_side_by_side_in_one_process_are_copied():
    with EnvPool(CompoSuiteTask.parse(COMPOSUITE[0]), 2, horizon=9) as vector:
        vector.reset([1, 2])
        actions = np.full((2, 8), 0.3)
        vector.step(actions)
        other = copy.deepcopy(vector)
        alone = [other.step(actions) for _ in range(3)]
        for _ in range(3):
            other.step(-actions)
        _expect_equal([seen[0] for seen in alone], [vector.step(actions)[0] for _ in range(3)])


def test_sync_vectors_of_gymnasium_are_copied():
    vector = gymnasium.make_vec("CompoSuite/IIWA_Box_None_PickPlace-v0", num_envs=2, vectorization_mode="sync")
    vector.reset(seed=3)
    actions = np.full((2, 8), 0.3, np.float32)
    other = copy.deepcopy(vector)
    alone = [other.step(actions)[0].copy() for _ in range(3)]
    _expect_equal(alone, [vector.step(actions)[0].copy() for _ in range(3)])
    assert np.abs(alone[-1] - alone[0]).max() > 1e-3


def _step_elsewhere(pipe):
    env = pickle.loads(pipe.recv_bytes())
    pipe.send([observation.tolist() for observation in _onward(env, 3)])


@pytest.mark.parametrize("name", [COMPOSUITE[0], "lift"])
def test_a_pickled_environment_goes_on_in_another_process(name):
    env = _under_way(name)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_step_elsewhere, args=(theirs,), daemon=True)
    process.start()
    ours.send_bytes(pickle.dumps(env))
    told = ours.recv()
    process.join()
    assert told == json.loads(json.dumps([observation.tolist() for observation in _onward(env, 3)]))


def test_parts_of_an_environment_are_not_copied_by_themselves():
    composuite, lift = _made(COMPOSUITE[0]), _made("lift")
    parts = [composuite.simulation, composuite._observer, composuite._poses, composuite._grasped]
    for part in (*parts, lift.controller, lift.observer):
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="copy or pickle the environment"):
                copied(part)
    assert copy.deepcopy(lift.scene) is lift.scene


def test_a_subclass_keeps_what_it_adds():
    env = envs.make(COMPOSUITE[1])
    env.notes = [1]
    env.reset(seed=0)
    other = copy.deepcopy(env)
    other.notes.append(2)
    assert (env.notes, other.notes) == ([1], [1, 2])
