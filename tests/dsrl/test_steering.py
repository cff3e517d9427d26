import os
import signal

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from dsrl.noise_env import load_actor
from dsrl.rollout import Episodes
from dsrl.steering import BEST, Steering, steer
from dsrl.steering_state import SteeringFolder
from runtime import interrupt
from runtime.atomic import read_json, write_json
from runtime.errors import DataError, StateError
from runtime.metrics import read_metrics
from runtime.seeds import rng
from tests.dsrl.conftest import tiny_steering
from tests.dsrl.stacked_critics import expect_stacked_like


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_the_warm_start_stores_what_the_algorithm_learns_from(policy, tmp_path, algorithm):
    run = Steering(policy, tiny_steering(tmp_path, algorithm=algorithm, initial_steps=48))
    while not run.is_warm:
        run.warm_up()
    buffer = run.model.replay_buffer
    assert (buffer.size(), run.count["warm_episodes"], run.env.env_steps, run.steps) == (6, 4, 48, 0)
    assert 0 <= run.count["warm_solved"] <= 4
    w = rng("prior", 0).standard_normal((2, 28), dtype=np.float32).clip(-1, 1)
    stored = buffer.actions[0]
    if algorithm == "sac":
        np.testing.assert_allclose(stored, w, atol=1e-6)
    else:
        chunk = policy.denoise(torch.from_numpy(buffer.observations[0]), torch.from_numpy(w)).numpy()
        np.testing.assert_allclose(stored, chunk, atol=1e-4)
    assert (buffer.rewards[:3] == -4).all()
    assert buffer.dones[2].all()
    assert buffer.timeouts[2].all(), "a time limit is not the end of the task"
    batch = run.model.sample(20).batch
    assert batch.dones.sum() == 0
    assert (batch.rewards == -4).all()


def test_the_stacked_critics_are_the_single_ones_and_so_are_their_gradients(policy, tmp_path):
    critic = Steering(policy, tiny_steering(tmp_path)).model.critic
    states, actions = torch.randn(5, 19), torch.randn(5, 28)
    plain = torch.cat(critic(states, actions), dim=1).T
    expect_stacked_like(critic, plain, states, actions)


def test_an_update_follows_the_equations_of_sac(policy, tmp_path):
    """Against stable-baselines3's own actor and critics, on the same batch and random numbers."""
    model = _warm(policy, tmp_path, reward_scale=0.5, ent_coef="0.3")
    drawn = model.sample(8)
    batch = drawn.batch
    with torch.no_grad():
        w, log_prob = _sampled(model, batch.next_states)
        value = torch.min(*model.critic_target(batch.next_states, w))[:, 0] - 0.3 * log_prob
        target = batch.rewards + (1 - batch.dones) * 0.99 * value
        expected = sum(((q[:, 0] - target) ** 2).mean() for q in model.critic(batch.states, batch.actions))
    assert (batch.rewards == -2).all()
    model.generator.manual_seed(5)
    found = model.update_critics(drawn, torch.tensor(0.3))["critic_loss"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["sac", "na"])
def test_rewards_of_several_decisions_are_summed_up_to_the_end_of_the_episode(policy, tmp_path, algorithm):
    """Against a plain loop, on a buffer whose rows say where they are, and which has begun to be overwritten."""
    run = Steering(policy, tiny_steering(tmp_path, algorithm=algorithm, n_step=3, reward_scale=0.5))
    model, buffer = run.model, run.model.replay_buffer
    size = buffer.buffer_size
    random = np.random.default_rng(1)
    buffer.observations[..., 0] = np.arange(size)[:, None]
    buffer.next_observations[..., 0] = np.arange(size)[:, None]
    buffer.observations[..., 1] = np.arange(2)
    buffer.rewards[:] = random.uniform(-4, 0, (size, 2))
    buffer.dones[:] = random.random((size, 2)) < 0.2
    buffer.timeouts[:] = buffer.dones * (random.random((size, 2)) < 0.5)
    buffer.pos, buffer.full = 5, True
    batch = model.sample(500).batch
    for row in range(500):
        step, env = (int(value) for value in batch.states[row, :2])
        taken = [step]
        while len(taken) < 3 and not buffer.dones[taken[-1], env] and (taken[-1] + 1) % size != buffer.pos:
            taken.append((taken[-1] + 1) % size)
        value = sum(0.5 * 0.99**k * buffer.rewards[at, env] for k, at in enumerate(taken))
        ended = buffer.dones[taken[-1], env] and not buffer.timeouts[taken[-1], env]
        assert batch.rewards[row].item() == pytest.approx(value, abs=1e-5)
        assert batch.next_states[row, 0] == taken[-1]
        left = 0.0 if ended else 0.99 ** len(taken)
        assert 0.99 * (1 - batch.dones[row].item()) == pytest.approx(left, abs=1e-5)


def test_with_a_delay_the_actor_learns_in_every_second_step_and_the_critics_in_each(policy, tmp_path):
    model = _warm(policy, tmp_path, policy_delay=2)
    changed = []
    for _ in range(4):
        before = [[value.clone() for value in network.parameters()] for network in (model.actor, model.critic)]
        model.train(1, 16)
        after = [list(network.parameters()) for network in (model.actor, model.critic)]
        changed.append([not all(map(torch.equal, a, b)) for a, b in zip(before, after, strict=True)])
    assert changed == [[True, True], [False, True]] * 2


def _weights(folder):
    return SAC.load(folder / BEST).policy.state_dict()


@pytest.mark.parametrize("algorithm", ["sac", "na"])
@pytest.mark.parametrize("decisions", [4, 12])
def test_a_run_that_was_asked_to_stop_goes_on_as_one_that_was_not(policy, tmp_path, monkeypatch, algorithm, decisions):
    """In the warm start (4 decisions of both environments) and in the training (12)."""

    def config(name):
        return tiny_steering(tmp_path / name, algorithm=algorithm, initial_steps=64, eval_freq=16)

    whole = steer(policy, config("whole"))
    execute, executed = Steering._execute, []

    def counted(run, w):
        executed.append(w)
        if len(executed) == decisions:
            os.kill(os.getpid(), signal.SIGTERM)
        return execute(run, w)

    monkeypatch.setattr(Steering, "_execute", counted)
    with pytest.raises(interrupt.Interrupted), interrupt.honoured():
        steer(policy, config("cut"))
    assert not interrupt.requested()
    assert (tmp_path / "cut" / "resume.pt").exists()
    monkeypatch.undo()
    again = steer(policy, config("cut"))
    for part in ("cloned", "steered", "steered_deterministic", "warm_start", "env_steps", "gradient_steps"):
        assert again[part] == whole[part]
    for name, value in _weights(tmp_path / "whole").items():
        assert torch.equal(value, _weights(tmp_path / "cut")[name]), name
    curves = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    for one, two in zip(*curves, strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert not (tmp_path / "cut" / "resume.pt").exists()
    assert steer(policy, config("cut")) == again, "a finished run is not run again"


def test_a_run_is_not_continued_with_other_settings(policy, tmp_path):
    steer(policy, tiny_steering(tmp_path))
    with pytest.raises(StateError, match=r"a run with other settings \(utd\)"):
        steer(policy, tiny_steering(tmp_path, utd=3))


def test_an_actor_is_judged_by_its_mean_or_its_samples_whichever_solves_more(policy, tmp_path, monkeypatch):
    run = Steering(policy, tiny_steering(tmp_path))
    solved = iter([[1, 0], [1, 1], [1, 0], [1, 0]])
    slow, fast = np.array([3, 3]), np.array([3, 2])
    decisions = iter([slow, slow, slow, fast])

    def episodes(*_):
        success = np.array(next(solved), bool)
        steps = 4 * next(decisions)
        return Episodes(np.arange(2), success, success, steps // 4, steps, success.astype(float))

    monkeypatch.setattr("dsrl.steering.run_episodes", episodes)
    first, second = run.evaluate(None), run.evaluate(None)
    assert (first["mean_rate"], first["sampled_rate"], first["rate"]) == (0.5, 1.0, 1.0)
    assert (second["rate"], second["mean_decisions"]) == (0.5, 2.5), "among equals the faster"


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
    with pytest.raises(DataError, match="not a SAC model"):
        load_actor(policy.checkpoint.path, policy)
    asked = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**asked, "policy": "0" * 64})
    with pytest.raises(DataError, match="steers another policy than"):
        load_actor(tmp_path / BEST, policy)


def test_a_policy_that_solves_nothing_is_not_steered(policy, tmp_path):
    with pytest.raises(DataError, match="too little to learn from"):
        steer(policy, tiny_steering(tmp_path, least_base_rate=0.9))


def test_one_update_of_noise_aliasing_follows_its_equations(policy, tmp_path):
    """Against the losses written out on the same batch and random numbers."""
    model = _warm(policy, tmp_path, algorithm="na")
    drawn = model.sample(8)
    batch = drawn.batch
    with torch.no_grad():
        w, log_prob = _sampled(model, batch.next_states)
        chunk = policy.denoise(batch.next_states, w)
        value = torch.min(*model.action_critic_target(batch.next_states, chunk))[:, 0] - 0.3 * log_prob
        target = batch.rewards + (1 - batch.dones) * 0.99 * value
        expected = sum(((q[:, 0] - target) ** 2).mean() for q in model.action_critic(batch.states, batch.actions))
    model.generator.manual_seed(5)
    found = model.update_critics(drawn, torch.tensor(0.3))["critic_loss"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for value in model.action_critic.parameters():
            value.mul_(2)
    losses = [model.distill(drawn) for _ in range(300)]
    assert torch.stack(losses[-100:]).mean() < torch.stack(losses[:10]).mean(), "Q_W approaches Q_A"


def _warm(policy, folder, **options):
    """A model after a warm start."""
    run = Steering(policy, tiny_steering(folder, **options))
    while not run.is_warm:
        run.warm_up()
    return run.model


def _sampled(model, states):
    """w (B, 28) of stable-baselines3's own actor by the random numbers of seed 5, and its log density (B,)."""
    mean, log_std, _ = model.actor.get_action_dist_params(states)
    model.actor.action_dist.proba_distribution(mean, log_std)
    raw = mean + log_std.exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
    return raw.tanh(), model.actor.action_dist.log_prob(raw.tanh(), raw)


@pytest.mark.parametrize("text", ["", "[]", '{"use": "steered"}', '{"policy": NaN}'])
def test_damaged_files_of_a_steering_run_are_named_in_one_line(policy, tmp_path, text):
    config = tiny_steering(tmp_path)
    folder = SteeringFolder(tmp_path, config, policy)
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match=r"result\.json"):
        folder.result()
    if "use" not in text:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(DataError, match=r"config\.json"):
            SteeringFolder(tmp_path, config, policy)
