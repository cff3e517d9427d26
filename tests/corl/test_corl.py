import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from corl.batch import Batch
from corl.config import PolicyConfig
from corl.evaluate import Evaluation, evaluate
from corl.networks import Actor, CriticEnsemble
from corl.policy import Policy, checkpoint_file
from corl.replay import ReplayData
from corl.run import PolicyRun
from corl.td3_bc import TD3BC, TD3BCConfig, actor_loss, target_values
from corl.train import train_policy
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import STD_OFFSET
from runtime.errors import ConfigError, DataError
from runtime.metrics import read_metrics
from tests.recordings import random_transitions

CPU = torch.device("cpu")
TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


def _batch(size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states, next_states = torch.randn(2, size, 77, generator=generator)
    actions = torch.rand(size, 8, generator=generator) * 2 - 1
    rewards = torch.rand(size, generator=generator)
    return Batch(states, actions, rewards, next_states, (rewards > 0.9).float())


def _learner(**options):
    return TD3BC.build(77, 8, TD3BCConfig(hidden_dims=(32, 32), **options), seed=0, device=CPU)


def test_the_sizes_are_the_published_ones():
    actor = sum(p.numel() for p in Actor(77, 8, (256, 256)).parameters())
    critics = sum(p.numel() for p in CriticEnsemble(77, 8, (256, 256)).parameters())
    assert (actor, critics) == (87_816, 2 * 88_065)


def test_the_batched_critics_equal_two_separate_networks():
    critic, batch = CriticEnsemble(77, 8, (32, 32)), _batch()
    together = critic(batch.states, batch.actions)
    for i in range(2):
        hidden = torch.cat([batch.states, batch.actions], dim=1)
        for layer, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
            hidden = F.linear(hidden, weight[i].T, bias[i, 0])
            hidden = torch.relu(hidden) if layer < 2 else hidden
        torch.testing.assert_close(together[i], hidden[:, 0])
    torch.testing.assert_close(critic(batch.states, batch.actions, 1), together[:1])
    assert not torch.equal(together[0], together[1])


def test_the_critics_target_is_the_formula():
    learner, batch = _learner(), _batch()
    actor, critic = (learner.modules[name] for name in ("actor_target", "critic_target"))
    values = target_values(actor, critic, batch, torch.zeros_like(batch.actions), learner.config)
    smaller = critic(batch.next_states, actor(batch.next_states)).min(dim=0).values
    torch.testing.assert_close(values, batch.rewards + (1 - batch.dones) * 0.99 * smaller)
    ended = batch.dones == 1
    assert ended.any()
    torch.testing.assert_close(values[ended], batch.rewards[ended])
    noise = torch.full_like(batch.actions, 100.0)
    noisy = target_values(actor, critic, batch, noise, learner.config)
    clipped = critic(batch.next_states, (actor(batch.next_states) + 0.5).clamp(-1, 1)).min(dim=0).values
    torch.testing.assert_close(noisy, batch.rewards + (1 - batch.dones) * 0.99 * clipped)


def test_the_actors_loss_balances_value_and_cloning():
    learner, batch = _learner(), _batch()
    actor, critic = learner.modules["actor"], learner.modules["critic"]
    actions = actor(batch.states)
    q = critic(batch.states, actions)[0]
    expected = -2.5 / q.abs().mean() * q.mean() + ((actions - batch.actions) ** 2).mean()
    loss, cloning = actor_loss(actor, critic, batch, 2.5)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(cloning, ((actions - batch.actions) ** 2).mean())


def test_an_actor_step_moves_the_actor_alone_and_targets_follow_by_tau():
    learner, batch = _learner(policy_freq=1, tau=0.25), _batch()
    before = copy.deepcopy(learner)
    learner.update(batch)
    after, before = learner.modules, before.networks.modules
    for name in ("actor", "critic"):
        new, old, target = after[name], before[name], after[f"{name}_target"]
        for p_new, p_old, p_target in zip(new.parameters(), old.parameters(), target.parameters(), strict=True):
            torch.testing.assert_close(p_target, p_old + 0.25 * (p_new - p_old))
            assert not torch.equal(p_new, p_old)


def test_the_actor_learns_only_every_second_step():
    learner, batch = _learner(), _batch()
    weights = [copy.deepcopy(learner.actor.state_dict())]
    for _ in range(2):
        learner.update(batch)
        weights.append(copy.deepcopy(learner.actor.state_dict()))
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[1][k], weights[2][k]) for k in weights[0])


def test_cloning_alone_reproduces_the_shown_actions():
    learner = _learner(alpha=0.0, learning_rate=3e-3)
    data = ReplayData.of(random_transitions(), PolicyConfig(), COMPOSUITE, CPU)
    for _ in range(400):
        losses = learner.update(data.batch(torch.randint(len(data), (64,), generator=learner.generator)))
    assert losses["bc_loss"] < 0.05


def test_states_are_normalised_by_the_sets_own_statistics():
    transitions = random_transitions()
    data = ReplayData.of(transitions, PolicyConfig(timeouts_as_terminals=True), COMPOSUITE, CPU)
    batch = data.batch(torch.arange(len(data)))
    assert batch.states.mean(dim=0).abs().max() < 1e-4
    assert (batch.states.std(dim=0, correction=0) - 1).abs().max() < 5e-3
    np.testing.assert_array_equal(batch.dones.numpy() == 1, transitions.terminals | transitions.timeouts)


def test_what_hardly_varies_in_a_set_is_not_magnified_beyond_the_least_deviation():
    """A generated goal that stands 3 cm too low with a deviation of 3 mm must not read ten deviations off."""
    transitions = random_transitions()
    transitions.states[:, 30] = 0.968 + 0.003 * np.sign(transitions.states[:, 30])
    true = transitions.states[:1].copy()
    true[0, 30] = 0.997
    for least_std, most in ((0.0, 8.0), (0.1, 0.3)):
        transform = PolicyConfig(least_std=least_std).transform(transitions.states, COMPOSUITE)
        expected = 0.029 / max(least_std, 0.003 + STD_OFFSET)
        assert abs(transform.apply(true)[0, 30]) == pytest.approx(expected, rel=0.05) and expected < most
    wide = PolicyConfig(least_std=0.1).transform(np.tile([[0.0], [10.0]], (5, COMPOSUITE.state_dim)), COMPOSUITE)
    np.testing.assert_allclose(np.abs(wide.std), 5)  # what varies more is scaled by its own deviation


class LineWorld:
    """Four environments that end after five steps; success is an action mean above zero in the last step."""

    num_envs = 4

    def reset(self, seeds):
        self.time, self.seeds = 0, np.array(seeds)
        return np.full((len(self.seeds), 77), 0.0, np.float32)

    def step(self, actions):
        self.time += 1
        over = np.full(len(self.seeds), self.time >= 5)
        observations = np.full((len(self.seeds), 77), self.time, np.float32)
        return observations, actions.mean(axis=1), np.zeros_like(over), over, actions.mean(axis=1) > 0


def test_evaluation_runs_one_episode_per_seed_and_judges_the_last_step():
    result = evaluate(lambda obs: np.where(obs[:, :8] == 4, 1.0, -1.0), LineWorld(), seeds=list(range(10)))
    assert (result.episodes, result.solved, result.success_rate) == (10, 10, 1.0)
    np.testing.assert_allclose(result.returns, -4 + 1)


CONFIG = PolicyConfig(
    max_timesteps=40,
    batch_size=16,
    eval_freq=10,
    n_episodes=3,
    fresh_episodes=5,
    learners={"td3_bc": TD3BCConfig(hidden_dims=(16, 16))},
)


def _train(folder, evaluate_policy=None):
    environment = LineWorld()
    judge = evaluate_policy or (lambda policy, seeds: evaluate(policy, environment, seeds))
    data = ReplayData.of(random_transitions(), CONFIG, COMPOSUITE, CPU)
    return train_policy(PolicyRun(data, CONFIG, folder, seed=3, device=CPU), judge)


def test_a_policy_that_was_killed_ends_like_one_that_was_not(tmp_path):
    whole = _train(tmp_path / "whole")
    environment, calls = LineWorld(), []

    def dying(policy, seeds):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(policy, environment, seeds)

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", dying)
    assert _train(tmp_path / "killed") == whole
    for which in ("best_eval", "best_successrate"):
        a, b = (
            torch.load(checkpoint_file(tmp_path / name, "td3_bc", which), weights_only=True)["actor"]
            for name in ("whole", "killed")
        )
        assert all(torch.equal(a[key], b[key]) for key in a)
    rows = read_metrics(tmp_path / "killed" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30, 40]


def test_the_best_evaluation_is_kept_apart_from_the_last_and_from_fresh_episodes(tmp_path):
    solved = iter([1, 3, 0, 2, 4])

    def scripted(policy, seeds):
        count = next(solved)
        return Evaluation(np.full(len(seeds), float(count)), np.arange(len(seeds)) < count)

    scores = _train(tmp_path, scripted)
    assert (scores.best_solved, scores.last_solved, scores.episodes) == (3, 2, 3)
    assert (scores.fresh_solved, scores.fresh_episodes) == (4, 5)
    assert (scores.solved, scores.trials) == (4, 5)


def test_a_saved_policy_acts_as_the_trained_one_without_the_data(tmp_path):
    states = np.random.default_rng(0).normal(size=(4, 77)).astype(np.float32)
    acted = []

    def record(policy, seeds):
        """Every evaluation is better than the one before, so that the last is the one kept."""
        acted.append(policy(states))
        return Evaluation(np.full(len(seeds), float(len(acted))), np.ones(len(seeds), bool))

    _train(tmp_path, record)
    assert len(acted) == 40 // 10 + 1, "four evaluations, and the kept policy on fresh episodes"
    for which in ("best_successrate", "best_eval"):
        policy = Policy.load(checkpoint_file(tmp_path, "td3_bc", which), COMPOSUITE)
        np.testing.assert_allclose(policy(states), acted[3], atol=1e-6)
    assert np.abs(acted[3] - acted[0]).max() > 1e-4
    assert np.abs(acted[3]).max() <= 1.0


def test_a_policy_does_not_care_about_the_sign_of_relative_quaternions(tmp_path):
    _train(tmp_path)
    policy = Policy.load(checkpoint_file(tmp_path, "td3_bc", "best_eval"), COMPOSUITE)
    states = np.random.default_rng(1).normal(size=(4, 77)).astype(np.float32)
    flipped = states.copy()
    for part in COMPOSUITE.relative_quaternions:
        flipped[:, part] *= -1
    np.testing.assert_array_equal(policy(states), policy(flipped))


def test_an_unknown_algorithm_or_a_foreign_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="algorithm 'ppo': expected one of td3_bc, iql, bc, sac"):
        PolicyConfig(algorithm="ppo")
    (tmp_path / "x.pt").write_text("no")
    with pytest.raises(DataError, match=r"x\.pt: not a readable checkpoint"):
        Policy.load(tmp_path / "x.pt", COMPOSUITE)
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(DataError, match=r"tensor\.pt: holds a Tensor, expected the mapping of a checkpoint"):
        Policy.load(tmp_path / "tensor.pt", COMPOSUITE)
    _train(tmp_path)
    path = checkpoint_file(tmp_path, "td3_bc", "best_eval")
    torch.save(torch.load(path, weights_only=True) | {"learner": {"hidden_dims": [5]}}, path)
    with pytest.raises(DataError, match=r"best_eval\.pt: actor has a tensor of shape"):
        Policy.load(path, COMPOSUITE)
