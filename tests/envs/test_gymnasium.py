"""gymnasium's small print: what its tools and stable-baselines3's expect of an environment."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_checker import check_env as check_for_sb3
from stable_baselines3.common.monitor import Monitor

import envs
from envs.robomimic.task import POLICY_KEYS
from envs.task_env import CONTROL_FREQUENCY
from runtime.errors import ConfigError, TaskError

NAMES = ["IIWA_Plate_ObjectDoor_Push", "lift"]
IDS = ["CompoSuite/IIWA_Plate_ObjectDoor_Push-v0", "Robomimic/lift-v0"]


@pytest.mark.parametrize("name", NAMES)
def test_the_checkers_of_gymnasium_and_sb3_have_nothing_to_say(name):
    env = envs.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of an unbounded observation they warn, rightly in general.
        warnings.filterwarnings("ignore", message=".*(infinity|-inf|not normalized).*")
        check_env(env, skip_render_check=True)
        check_for_sb3(env)


@pytest.mark.parametrize(("name", "length"), list(zip(IDS, [500, 400], strict=True)))
def test_the_length_of_an_episode_is_that_of_its_spec(name, length):
    assert gymnasium.spec(name).max_episode_steps == length
    env = gymnasium.make(name)
    assert env.spec.max_episode_steps == length
    assert env.unwrapped.horizon is None, "one limit, not two"
    shorter, longer = gymnasium.make(name, max_episode_steps=2), gymnasium.make(name, max_episode_steps=length + 2)
    for env, steps in ((shorter, 2), (longer, length + 2)):
        env.reset(seed=0)
        idle = np.zeros(env.action_space.shape, np.float32)
        ended = [any(env.step(idle)[2:4]) for _ in range(steps)]
        assert ended == [False] * (steps - 1) + [True]
    assert gymnasium.make(name, horizon=2).unwrapped.horizon == 2


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_a_length_that_gymnasiums_own_limit_contradicts_is_refused(make):
    for name, length in zip(IDS, [500, 400], strict=True):
        with pytest.raises(ConfigError, match=f"horizon {length + 1}: gymnasium ends episodes after {length}"):
            make(name, horizon=length + 1)
    with pytest.raises(ConfigError, match=r"ignore_done True.*max_episode_steps=-1"):
        make(IDS[0], ignore_done=True)


def test_chunks_count_as_one_step_and_end_with_the_control_steps():
    env = gymnasium.make(IDS[1], chunk=4)
    assert env.unwrapped.horizon == 400
    vector = gymnasium.make_vec(IDS[1], num_envs=1, chunk=4, max_episode_steps=2)
    env = gymnasium.make(IDS[1], chunk=4, max_episode_steps=2)
    env.reset(seed=0)
    vector.reset(seed=0)
    for ended in (False, True):
        assert env.step(np.zeros(28, np.float32))[3] is ended
        assert vector.step(np.zeros((1, 28), np.float32))[3][0] == ended


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["human", "rgb", "depth_array", ""])
def test_a_render_mode_that_there_is_not_is_refused(name, mode):
    with pytest.raises(ConfigError, match=f"render_mode '{mode}': expected None or rgb_array"):
        envs.make(name, render_mode=mode)


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_knows_the_render_modes_before_it_makes_an_environment(name):
    with pytest.warns(UserWarning, match="not in the possible render_modes"), pytest.raises(ConfigError):
        gymnasium.make(name, render_mode="depth_array")
    # Its own wrapper shows the pictures in a window.
    with pytest.warns(UserWarning, match="HumanRendering wrapper is being applied"):
        env = gymnasium.make(name, render_mode="human")
    assert isinstance(env, gymnasium.wrappers.HumanRendering)
    assert env.unwrapped.render_mode == "rgb_array"
    assert env.metadata["render_fps"] == CONTROL_FREQUENCY


@pytest.mark.parametrize("name", NAMES)
def test_reset_takes_no_options_and_no_seed_that_numpy_would_refuse(name):
    env = envs.make(name)
    env.reset(seed=1, options={})
    with pytest.raises(ConfigError, match=r"reset options \{'start': 3\}: expected none"):
        env.reset(options={"start": 3})
    with pytest.raises(ConfigError, match=f"seed {2**32}: expected 0 to {2**32 - 1}"):
        env.reset(seed=2**32)
    env.reset(seed=2**32 - 1)


@pytest.mark.parametrize("name", NAMES)
def test_np_random_seed_of_an_unseeded_episode_reproduces_it(name):
    env, other = envs.make(name), envs.make(name)
    starts = []
    for _ in range(3):
        first, _ = env.reset()
        starts.append(first)
        np.testing.assert_array_equal(other.reset(seed=env.np_random_seed)[0], first)
    assert not np.array_equal(starts[0], starts[1])
    # A seed decides the unseeded episodes after it as well.
    for made in (env, other):
        made.reset(seed=8)
        assert made.np_random_seed == 8
    for _ in range(2):
        np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
        assert env.np_random_seed == other.np_random_seed != 8


@pytest.mark.parametrize("name", NAMES)
def test_success_has_the_name_that_evaluations_look_for(name):
    env = envs.make(name)
    _, info = env.reset(seed=0)
    assert info["is_success"] is info["success"] is False
    info = env.step(np.zeros(env.action_space.shape))[4]
    assert info["is_success"] is info["success"]


def test_an_evaluation_of_sb3_sees_the_success_rate(tmp_path):
    env = Monitor(gymnasium.make(IDS[0], max_episode_steps=3))
    model = SAC("MlpPolicy", env, learning_starts=100, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    callback = EvalCallback(env, n_eval_episodes=2, eval_freq=4, log_path=str(tmp_path), verbose=0, warn=False)
    model.learn(5, callback=callback)
    with np.load(tmp_path / "evaluations.npz") as found:
        assert found["successes"].shape == (1, 2)


@pytest.mark.parametrize("name", ["lft", "IIWA_Box_None", 5, None, "IIWA-Box"])
def test_a_name_of_no_task_lists_the_right_ones(name):
    with pytest.raises(TaskError, match=r"expected .*(lift, can, square|Robot_Object_Obstacle_Objective)"):
        envs.make(name)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        *((name, {"horizon": value}, "horizon .*: expected a whole number, at least 1")
          for name in NAMES for value in (0, -1, 2.5, True, "9")),
        *((NAMES[0], {"reward_scale": value}, "reward_scale .*: expected a finite number above 0")
          for value in (0, -1.0, np.nan, np.inf, "1", True)),
        *((NAMES[1], {"chunk": value}, "chunk .*: expected a whole number, at least 1")
          for value in (0, 1.5, -2, True)),
        *((NAMES[1], {"keys": value}, "keys .*: expected one or more of robot0_eef_pos")
          for value in ((), "object", ("objects",), ("object", "object"), (*POLICY_KEYS, 3))),
        *((name, {"width": 0}, "width 0: expected") for name in NAMES),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(name, options, told):
    with pytest.raises(ConfigError, match=told):
        envs.make(name, **options)


def test_all_robomimic_tasks_are_registered():
    for name in ("lift", "can", "square"):
        env = gymnasium.make(f"Robomimic/{name}-v0")
        assert env.unwrapped.task.name == name
        assert env.observation_space.contains(env.reset(seed=0)[0])
