"""The vector environment against gymnasium's own for the same environments, and what it refuses."""

import copy

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401, registers the tasks
from envs.vector import VectorEnv
from runtime.errors import ConfigError

ID = "CompoSuite/IIWA_Box_None_PickPlace-v0"
LIFT = "Robomimic/lift-v0"


def _expect_equal(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _expect_equal(one[key], other[key], f"{where} {key}")
    elif one.dtype == object:
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right, err_msg=where)
    else:
        assert one.dtype == other.dtype, where
        np.testing.assert_array_equal(one, other, err_msg=where)


@pytest.mark.parametrize(
    ("name", "workers", "mode"),
    [
        (ID, 0, AutoresetMode.NEXT_STEP),
        (ID, 2, AutoresetMode.SAME_STEP),
        (LIFT, 0, AutoresetMode.NEXT_STEP),
    ],
)
def test_episodes_are_those_of_gymnasiums_own_vector_environment(name, workers, mode):
    length = {"max_episode_steps": 4}
    sync = gymnasium.make_vec(
        name, num_envs=3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **length
    )
    own = gymnasium.make_vec(name, num_envs=3, workers=workers, autoreset_mode=mode, **length)
    assert isinstance(own, VectorEnv)
    assert isinstance(own, gymnasium.vector.VectorEnv)
    assert own.metadata == sync.metadata
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(own, space) == getattr(sync, space)
    random = np.random.default_rng(0)
    for start in ({"seed": 5}, {}, {"seed": [7, 8, None]}):
        for one, other in zip(own.reset(**start), sync.reset(**start), strict=True):
            _expect_equal(one, other, f"reset {start}")
        for step in range(6):
            actions = random.uniform(-1, 1, own.action_space.shape).astype(np.float32)
            for one, other in zip(own.step(actions), sync.step(actions), strict=True):
                _expect_equal(one, other, f"step {step}")
        assert own.np_random_seed == sync.np_random_seed
    own.close()
    sync.close()


def test_without_autoreset_an_episode_stays_at_its_end_until_it_is_chosen():
    with_mask = gymnasium.make_vec(ID, num_envs=3, max_episode_steps=2, autoreset_mode=AutoresetMode.DISABLED)
    with_mask.reset(seed=0)
    actions = np.full((3, 8), 0.5, np.float32)
    for _ in range(2):
        last, _, _, truncated, _ = with_mask.step(actions)
    assert truncated.all()
    mask = np.array([False, True, False])
    first, infos = with_mask.reset(seed=[None, 1, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(first[~mask], last[~mask])
    assert not np.array_equal(first[1], last[1])
    np.testing.assert_array_equal(infos["_success"], mask)
    following, rewards, _, truncated, _ = with_mask.step(actions)
    np.testing.assert_array_equal(following[~mask], last[~mask])
    assert not rewards[~mask].any()
    assert list(truncated) == [True, False, True]


def test_the_seeds_of_unseeded_episodes_reproduce_them():
    env = gymnasium.make_vec(ID, num_envs=2)
    first, _ = env.reset()
    seeds = env.np_random_seed
    assert len(set(seeds)) == 2
    assert not np.array_equal(env.reset()[0], first)
    np.testing.assert_array_equal(env.reset(seed=seeds)[0], first)


def test_shapes_seeds_masks_and_modes_are_checked():
    env = VectorEnv("IIWA_Box_None_PickPlace", 3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((3, 8)))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.reset(seed=1, options={"reset_mask": np.array([True, False, True])})
    for seeds in ([1, 2], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="seeds, expected 3"):
            env.reset(seed=seeds)
    env.reset(seed=1)
    for shape in ((2, 8), (4, 8), (3, 7), (8,)):
        with pytest.raises(ValueError, match=r"expected \(3, 8\)"):
            env.step(np.zeros(shape))
    for mask in (np.ones(2, bool), np.zeros(3, bool), np.ones(3)):
        with pytest.raises(ValueError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(ConfigError, match="reset option start: expected none but reset_mask"):
        env.reset(options={"start": 1})
    env.close()
    env.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.step(np.zeros((3, 8)))
    for wrong in ({"num_envs": 0}, {"num_envs": 2.0}, {"autoreset_mode": "later"}, {"render_mode": "human"}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} .*expected"):
            VectorEnv("IIWA_Box_None_PickPlace", **({"num_envs": 1} | wrong))


def test_a_vector_environment_in_one_process_is_copied():
    env = gymnasium.make_vec(ID, num_envs=2)
    env.reset(seed=2)
    actions = np.full((2, 8), 0.3, np.float32)
    other = copy.deepcopy(env)
    for _ in range(3):
        np.testing.assert_array_equal(env.step(actions)[0], other.step(actions)[0])


def test_wrappers_for_vectors_fit():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(gymnasium.make_vec(ID, num_envs=2, max_episode_steps=3))
    env.reset(seed=0)
    for _ in range(3):
        infos = env.step(np.zeros((2, 8), np.float32))[4]
    assert list(infos["episode"]["l"]) == [3, 3]
