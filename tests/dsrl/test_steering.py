import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from dsrl.noise_aliasing import NoiseAliasingSAC
from dsrl.noise_env import load_actor
from dsrl.steering import BEST, make_sac, steer, warm_start
from runtime.errors import DataError
from tests.dsrl.conftest import open_noise, tiny_steering


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_the_warm_start_stores_what_the_algorithm_learns_from(policy, tmp_path, algorithm):
    env = open_noise(policy)
    model = make_sac(policy, env, tiny_steering(tmp_path, algorithm=algorithm))
    solved, finished = warm_start(model, env, 48, np.random.default_rng(0))
    buffer = model.replay_buffer
    assert (buffer.size(), finished, env.env_steps) == (6, 4, 48)
    assert 0 <= solved <= finished
    w = np.random.default_rng(0).standard_normal((2, 28), dtype=np.float32).clip(-1, 1)
    stored = buffer.actions[0]
    if algorithm == "sac":
        np.testing.assert_allclose(stored, w, atol=1e-6)
    else:
        chunk = policy.denoise(torch.from_numpy(buffer.observations[0]), torch.from_numpy(w)).numpy()
        np.testing.assert_allclose(stored, chunk, atol=1e-4)
    assert (buffer.rewards[:3] == -4).all()
    assert buffer.dones[2].all()
    assert buffer.timeouts[2].all(), "a time limit is not the end of the task"


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_steering_writes_a_model_that_stock_sac_loads(policy, tmp_path, algorithm):
    result = steer(policy, tiny_steering(tmp_path, algorithm=algorithm))
    assert result["use"] in ("cloned", "steered", "steered_deterministic")
    assert result["cloned"]["episodes"] == 2
    model = SAC.load(tmp_path / BEST)
    w, _ = model.predict(np.zeros((1, 19), np.float32))
    assert w.shape == (1, 28)
    choose = load_actor(tmp_path / BEST, policy, deterministic=True)
    np.testing.assert_allclose(
        choose(torch.zeros(1, 19), [0], 0).numpy(), model.predict(np.zeros((1, 19)), deterministic=True)[0], atol=1e-6
    )
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) >= 2
    with pytest.raises(DataError, match="no such SAC model"):
        load_actor(tmp_path / "none.zip", policy)
    (tmp_path / "bad.zip").write_text("no")
    with pytest.raises(DataError, match="not a SAC model"):
        load_actor(tmp_path / "bad.zip", policy)


def test_a_policy_that_solves_nothing_is_not_steered(policy, tmp_path):
    with pytest.raises(DataError, match="too little to learn from"):
        steer(policy, tiny_steering(tmp_path, least_base_rate=0.9))


def test_one_update_of_noise_aliasing_follows_its_equations(policy, tmp_path):
    """Against the losses written out on the same batch and random numbers."""
    model = make_sac(policy, open_noise(policy), tiny_steering(tmp_path, algorithm="na"))
    assert isinstance(model, NoiseAliasingSAC)
    warm_start(model, model.env, 48, np.random.default_rng(0))
    data = model.replay_buffer.sample(8)
    alpha = torch.tensor(0.3)
    torch.manual_seed(5)
    with torch.no_grad():
        w, log_prob = model.actor.action_log_prob(data.next_observations)
        value = torch.min(
            *model.action_critic_target(data.next_observations, policy.denoise(data.next_observations, w))
        )
        target = data.rewards + (1 - data.dones) * 0.99 * (value - 0.3 * log_prob[:, None])
        q1, q2 = model.action_critic(data.observations, data.actions)
        expected = ((q1 - target) ** 2).mean() / 2 + ((q2 - target) ** 2).mean() / 2
    torch.manual_seed(5)
    torch.testing.assert_close(model._update_action_critic(data, alpha), expected)
    before = [model._distill(data.observations) for _ in range(60)]
    assert torch.stack(before[-10:]).mean() < torch.stack(before[:10]).mean(), "Q_W approaches Q_A"
