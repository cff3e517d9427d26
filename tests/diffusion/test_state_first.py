"""The state first, then the rest given the state: the loss, the samples, and what is expected of a given state."""

import numpy as np
import pytest
import torch

from diffusion import state_first
from diffusion.conditional import given_states
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.dit import SemanticDiT
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from diffusion.partial import PartialSamples
from diffusion.pool import Pool
from diffusion.state_first import TransitionParts
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.errors import ConfigError

CPU = torch.device("cpu")
SMALL = DenoiserConfig(hidden=16, depth=1, heads=2, order="state_first")
TASKS = [CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Plate_GoalWall_Shelf")]
PARTS = TransitionParts.of(COMPOSUITE)


def _lawful(task, rows, seed):
    """Action, reward and next state follow from the state."""
    random = np.random.default_rng(seed)
    cause = random.normal(size=(rows, 1)).astype(np.float32)
    states = 0.1 * random.normal(size=(rows, 77)).astype(np.float32) + cause
    actions = np.tanh(np.repeat(cause, 8, axis=1))
    return Transitions(
        states=states,
        actions=actions,
        rewards=1 / (1 + np.exp(-cause[:, 0])),
        next_states=states + 0.1 * actions[:, :1],
        terminals=np.zeros(rows, dtype=bool),
        timeouts=np.zeros(rows, dtype=bool),
        task=task,
    )


def _pool(rows=400):
    return Pool.of(
        [_lawful(task, rows, i) for i, task in enumerate(TASKS)],
        COMPOSUITE,
        canonical_quaternions=False,
        timeouts_as_terminals=False,
    )


def _train(folder, steps=1200, network=SMALL, **options):
    values = {"steps": steps, "small_batch_size": 128, "learning_rate": 3e-3, "std_offset": 1e-3, "delta_next": True}
    values |= {"canonical_quaternions": False}
    config = TrainConfig(**values, ema_decay=0.98, ema_every=1, precision="float32", **options)
    train(_pool(), network, config, folder / "model.pt", seed=0, device=CPU)
    return DiffusionModel.load(folder / "model.pt", COMPOSUITE, CPU)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("state_first"))


def test_the_state_is_its_positions_and_velocities_belong_to_the_rest():
    assert PARTS.state.sum() == 77 - sum(part.stop - part.start for part in COMPOSUITE.velocities)
    assert not PARTS.state[77:].any()
    assert not any(PARTS.state[part].any() for part in COMPOSUITE.velocities)


def test_an_untrained_network_has_a_loss_of_about_one_for_each_part():
    network = SemanticDiT(COMPOSUITE, SMALL)
    y, condition = torch.randn(4096, 164), torch.from_numpy(TASKS[0].one_hot).float().expand(4096, -1)
    loss = state_first.StateFirstLoss(PARTS)(network, y, condition, torch.Generator().manual_seed(0))
    assert float(loss.detach()) == pytest.approx(2.0, abs=0.1)


def test_the_network_takes_the_state_alone():
    network = SemanticDiT(COMPOSUITE, SMALL)
    condition = torch.from_numpy(TASKS[0].one_hot)[None].float()
    assert network(torch.randn(5, 77), torch.zeros(1, 2), condition).shape == (5, 77)
    assert network(torch.randn(5, 164), torch.zeros(5, 2), condition).shape == (5, 164)


def test_the_rest_follows_from_the_state(model):
    data = _lawful(TASKS[0], 200, seed=9)
    expected = given_states(model, data.states, TASKS[0].one_hot, state_noise=0.05)
    np.testing.assert_array_equal(expected[:, COMPOSUITE.state], data.states)
    assert np.abs(expected[:, COMPOSUITE.action] - data.actions).mean() < 0.08
    assert np.abs(expected[:, COMPOSUITE.reward] - data.rewards).mean() < 0.05
    moved = expected[:, COMPOSUITE.next_state] - data.states
    assert np.abs(moved - (data.next_states - data.states)).mean() < 0.01


def test_velocities_of_a_given_state_are_not_read(model):
    data = _lawful(TASKS[0], 20, seed=9)
    other = data.states.copy()
    for part in COMPOSUITE.velocities:
        other[:, part] += 10.0
    one, two = (given_states(model, states, TASKS[0].one_hot, state_noise=0.05) for states in (data.states, other))
    np.testing.assert_array_equal(one[:, COMPOSUITE.action], two[:, COMPOSUITE.action])


@pytest.mark.parametrize("rest", ["mean", "sample"])
def test_samples_obey_the_law_of_the_data(model, rest):
    config = SamplerConfig(
        solver="dpmpp_2m", steps=12, num_samples=300, batch_size=100, sigma_max=20, rest=rest, state_noise=0.05
    )
    samples = generate(model, TASKS[1].one_hot, config, seed=1)
    causes = samples[:, COMPOSUITE.state].mean(axis=1)
    assert 0.6 < causes.std() < 1.3
    actions = samples[:, COMPOSUITE.action]
    assert np.abs(actions - np.tanh(causes)[:, None]).mean() < 0.25
    assert np.abs(actions - np.tanh(causes[::-1])[:, None]).mean() > 0.5, "actions belong to their states"


def test_the_expectation_of_a_sampled_state_is_what_the_mean_sampler_gives(model):
    config = SamplerConfig(solver="dpmpp_2m", steps=8, num_samples=50, batch_size=50, sigma_max=20, state_noise=0.05)
    samples = generate(model, TASKS[0].one_hot, config, seed=2)
    again = given_states(model, samples[:, COMPOSUITE.state], TASKS[0].one_hot, state_noise=0.05)
    actions = COMPOSUITE.action
    np.testing.assert_allclose(again[:, actions], samples[:, actions].clip(-1, 1), atol=1e-4)


def test_a_generation_that_was_stopped_ends_with_the_same_samples(model, tmp_path, monkeypatch):
    config = SamplerConfig(solver="heun_churn", steps=4, num_samples=60, batch_size=20, sigma_max=20, rest="sample")
    whole = generate(model, TASKS[0].one_hot, config, seed=3)
    partial = PartialSamples(tmp_path / "partial", "key", seconds=0.0)
    calls = []
    keep = PartialSamples.keep

    def keep_once(self, *arguments, **options):
        keep(self, *arguments, **options)
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(PartialSamples, "keep", keep_once)
    with pytest.raises(KeyboardInterrupt):
        generate(model, TASKS[0].one_hot, config, seed=3, partial=partial)
    monkeypatch.undo()
    resumed = generate(model, TASKS[0].one_hot, config, seed=3, partial=PartialSamples(tmp_path / "partial", "key"))
    assert calls
    np.testing.assert_array_equal(whole, resumed)


def test_a_generator_of_order_joint_expects_the_rest_as_well(tmp_path):
    network = DenoiserConfig(hidden=16, depth=1, heads=2)
    model = _train(tmp_path, steps=400, network=network, follow_scale=0.1, P_mean=-2.0, P_std=1.5, action_weight=5.0)
    data = _lawful(TASKS[0], 200, seed=9)
    expected = given_states(model, data.states, TASKS[0].one_hot, state_noise=0.05)
    assert np.abs(expected[:, COMPOSUITE.action] - data.actions).mean() < 0.2


@pytest.mark.parametrize("kind", ["dit_uniform", "monolithic", "compositional"])
def test_networks_without_tokens_of_the_state_refuse_the_order(kind):
    with pytest.raises(ConfigError, match="order"):
        DenoiserConfig(kind=kind, order="state_first")


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="order"):
        DenoiserConfig(order="last")
    with pytest.raises(ConfigError, match="condition_noise"):
        TrainConfig(condition_noise=(0.0, -1.0))
    with pytest.raises(ConfigError, match="unknown_share"):
        TrainConfig(unknown_share=1.5)
    with pytest.raises(ConfigError, match="rest"):
        SamplerConfig(rest="mode")
