import copy

import gymnasium
import numpy as np
import pytest
import torch

from dsrl.noise_env import DSRLEnvWrapper, actor_noise
from dsrl.rollout import episode_seeds, open_environments, run_episodes
from dsrl.steering import make_sac
from envs.pool import WorkerError
from envs.robomimic.env import RobomimicEnv
from runtime.intervals import wilson
from tests.dsrl.conftest import open_noise, tiny_steering


def test_an_episode_does_not_depend_on_those_beside_it(policy):
    seeds = episode_seeds(0, 3)
    with open_environments(policy, 3, horizon=8) as together, open_environments(policy, 1, horizon=8) as alone:
        a, b = run_episodes(policy, together, seeds), run_episodes(policy, alone, seeds)
    np.testing.assert_array_equal(a.successes, b.successes)
    np.testing.assert_array_equal(a.decisions, [2, 2, 2])
    assert [row["seed"] for row in a.rows()] == seeds


def test_the_interval_is_wilson_s():
    low, high = wilson(49, 50)
    assert (round(low, 3), round(high, 3)) == (0.895, 0.996)


def test_the_noise_environment_keeps_the_gymnasium_contract(policy):
    env = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4, horizon=10), policy, 1.5)
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert env.action_space == gymnasium.spaces.Box(-1.5, 1.5, (28,), np.float32)
    rewards = []
    ended = False
    before = [value.clone() for value in policy.network.state_dict().values()]
    while not ended:
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        rewards.append(reward)
        ended = terminated or truncated
    assert rewards == [-4, -4, -2], "minus one for every step that is not solved, and none beyond the horizon"
    assert truncated
    for value, old in zip(policy.network.state_dict().values(), before, strict=True):
        assert torch.equal(value, old)
    assert info["chunk"].shape == (28,)


def test_noise_of_another_shape_or_before_a_reset_is_refused(policy):
    single, batched = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4), policy), open_noise(policy)
    for env, shape, wrong in ((single, (28,), [(7,), (2, 28)]), (batched, (2, 28), [(1, 28), (3, 28), (2, 7), (28,)])):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.zeros(shape))
        env.reset()
        for other in wrong:
            with pytest.raises(ValueError, match=f"expected {shape}".replace("(", r"\(").replace(")", r"\)")):
                env.step(np.zeros(other))
        env.step(np.zeros(shape))


def test_a_copy_of_the_noise_environment_goes_on_alike(policy):
    env = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4), policy)
    env.reset()
    w = np.full(28, 0.5, np.float32)
    env.step(w)
    other = copy.deepcopy(env)
    for _ in range(2):
        np.testing.assert_array_equal(env.step(w)[0], other.step(w)[0])


def test_a_killed_process_of_the_noise_environments_is_told(policy):
    env = open_noise(policy, workers=True)
    env.reset()
    env.venv.processes[1].kill()
    env.venv.processes[1].join()
    with pytest.raises(WorkerError, match="a process with environments was killed"):
        env.step(np.zeros((2, 28)))
    env.venv.processes[0].kill()


def test_the_batched_environment_is_the_single_one(policy):
    batched = open_noise(policy)
    single = DSRLEnvWrapper(RobomimicEnv("lift", chunk=4, horizon=12), policy)
    batched.reset()
    # The wrapper's first episode is the first environment's: both are seeded by 0.
    seen, _ = single.reset(seed=0)
    batched.venv.seed(0)
    assert np.allclose(batched.reset()[0], seen)
    for step in range(3):
        w = np.random.default_rng(step).uniform(-1, 1, (2, 28)).astype(np.float32)
        seen, reward, _, truncated, info = single.step(w[0])
        _, rewards, dones, infos = batched.step(w)
        np.testing.assert_allclose(infos[0]["chunk"], info["chunk"], atol=1e-5)
        assert rewards[0] == reward
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is truncated is True
    np.testing.assert_allclose(infos[0]["terminal_observation"], seen, atol=1e-4)
    assert batched.env_steps == 2 * 12


def test_an_actor_s_episode_has_its_own_random_numbers(policy, tmp_path):
    model = make_sac(policy, open_noise(policy), tiny_steering(tmp_path))
    seen = torch.zeros(2, 19)
    both = actor_noise(model, deterministic=False)(seen, [4, 9], 0)
    alone = actor_noise(model, deterministic=False)(seen[:1], [9], 0)
    torch.testing.assert_close(both[1], alone[0])
    assert both.abs().max() <= 1
    assert not torch.equal(both[0], both[1])
