"""RLPD's own sizes, values in bfloat16, seeds of weights and noise, and the range of generated rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import corl.networks
from corl.factored import FactoredCritic, FactoredValue
from corl.iql import IQL, IQLConfig
from corl.multitask_config import ALGORITHMS, MultitaskConfig
from corl.multitask_learner import make_learner, make_network
from corl.networks import Actor, CriticEnsemble, SquashedActor, Value
from corl.sac import SAC, SACConfig
from corl.stacking import in_dtype
from corl.td3_bc import TD3BC, TD3BCConfig
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.generate import generate, keep_in_range
from diffusion.model import DiffusionModel
from diffusion.pool import Pool
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from pipeline.commands.online import VARIANTS, SACFlags
from runtime.program import PROJECT_ROOT
from runtime.seeds import derive_seed
from tests.corl.test_corl import CPU, TASK
from tests.corl.test_sac import _batch
from tests.recordings import random_transitions


def test_rlpds_file_aims_at_half_the_actions_dimension_and_the_published_code_at_all_of_it():
    published = SACFlags().online_config(VARIANTS["rlpd_synthdata"]).sac
    rlpd = SACFlags(PROJECT_ROOT / "config" / "online" / "rlpd.yaml").online_config(VARIANTS["rlpd_synthdata"]).sac
    assert [config.entropy_per_action * COMPOSUITE.action_dim for config in (published, rlpd)] == [-8.0, -4.0]


@pytest.mark.parametrize("layer_norm", ["none", "last", "all"])
def test_the_target_computes_the_critics_that_it_uses_and_no_other(layer_norm, monkeypatch):
    config = SACConfig(hidden_dims=(8, 6), critics=10, target_critics=2, layer_norm=layer_norm)
    agent, batch = SAC.build(5, 2, config, seed=0, device=CPU), _batch()
    everything = agent.modules["critic_target"](batch.states, batch.actions)
    which = torch.tensor([7, 2])
    torch.testing.assert_close(agent.modules["critic_target"](batch.states, batch.actions, which), everything[which])
    product, sizes = torch.baddbmm, []

    def counted(bias, hidden, weight):
        sizes.append(len(weight))
        return product(bias, hidden, weight)

    monkeypatch.setattr(corl.networks.torch, "baddbmm", counted)
    agent.update(batch, (torch.randn(2, 16, 2), which))
    assert sizes[:3] == [2, 2, 2]
    assert sizes[3:] == [10] * 6, "all critics learn, and judge the actor"


def _biases(module):
    return [parameter for name, parameter in module.named_parameters() if name.startswith(module.float32)][-1:]


VALUES = {
    "ensemble": lambda: CriticEnsemble(COMPOSUITE.observation_dim, 8, (64, 64), 3, "all"),
    "twins": lambda: CriticEnsemble(COMPOSUITE.observation_dim, 8, (64, 64)),
    "value": lambda: Value(COMPOSUITE.observation_dim, (64, 64)),
    **{f"{name} critic": lambda name=name: FactoredCritic(name, COMPOSUITE) for name in ("transformer", "cp")},
    **{f"{name} value": lambda name=name: FactoredValue(name, COMPOSUITE) for name in ("transformer", "compositional")},
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_in_bfloat16_keep_the_digits_that_rewards_are_made_of(kind):
    """A step's reward is below 1 and values are up to 100: of 75 bfloat16 knows steps of 0.5."""
    torch.manual_seed(0)
    network = VALUES[kind]()
    (bias,) = _biases(network)
    for parameter in network.parameters():
        if not parameter.any():  # the transformer starts at 0
            torch.nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():
        bias.fill_(75.2)
    states = torch.from_numpy(COMPOSUITE.join_ids(random_transitions(rows=32).states, TASK.one_hot))
    inputs = (states,) if "value" in kind else (states, torch.rand(32, 8))
    exact = network(*inputs)
    rounded = in_dtype(network, dict(network.named_parameters()), torch.bfloat16)(*inputs)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05
    assert not torch.equal(rounded, exact), "the other layers are of bfloat16"
    gradient = torch.autograd.grad(rounded.sum(), bias)[0]
    assert gradient.abs().sum() > 0


def _multitask(name):
    config = MultitaskConfig(algorithm=name)
    return lambda: make_learner(config, COMPOSUITE, seed=3, device=CPU), lambda: make_network(
        "actor", config, COMPOSUITE
    )


LEARNERS = {
    "sac": (
        lambda: SAC.build(77, 8, SACConfig(hidden_dims=(8, 8)), seed=3, device=CPU),
        lambda: SquashedActor(77, 8, (8, 8)),
    ),
    "td3_bc of one task": (
        lambda: TD3BC.build(77, 8, TD3BCConfig(hidden_dims=(8, 8)), seed=3, device=CPU),
        lambda: Actor(77, 8, (8, 8)),
    ),
    "iql of one task": (
        lambda: IQL.build(77, 8, IQLConfig(hidden_dims=(8, 8)), seed=3, device=CPU, max_steps=10),
        lambda: Actor(77, 8, (8, 8)),
    ),
    **{name: _multitask(name) for name in ALGORITHMS},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_and_noise_have_a_seed_each(name):
    make, actor = LEARNERS[name]
    learner = make()
    assert learner.generator.initial_seed() == derive_seed("noise", 3)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("weights", 3))
        expected = actor()
    for ours, theirs in zip(learner.modules["actor"].parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _trained_on(folder, terminals):
    transitions = random_transitions(rows=40)
    transitions.rewards[:] = np.linspace(0.2, 0.4, 40)
    transitions.terminals[:], transitions.timeouts[:] = terminals, False
    pool = Pool.of([transitions], COMPOSUITE, timeouts_as_terminals=False)
    config = TrainConfig(steps=1, small_batch_size=8, precision="float32")
    train(pool, DenoiserConfig(hidden=8, depth=1, heads=1), config, folder / "m.pt", seed=0, device=CPU)
    return DiffusionModel.load(folder / "m.pt", COMPOSUITE, CPU)


@pytest.mark.parametrize("terminals", [False, True])
def test_generated_rewards_and_terminals_stay_within_what_was_seen_unless_told_otherwise(terminals, tmp_path):
    model = _trained_on(tmp_path, np.arange(40) == 39 if terminals else False)
    config = SamplerConfig(steps=2, num_samples=200, batch_size=200)
    rows = generate(model, TASK.one_hot, config, seed=0)
    rows[:100, COMPOSUITE.terminal] = 0.9
    assert rows[:, COMPOSUITE.reward].min() < 0.2, "of a network that has learned next to nothing"
    free, kept = rows.copy(), rows.copy()
    keep_in_range(free, model, replace(config, clip_actions=False, clip_rewards=False, clear_terminals=False))
    np.testing.assert_array_equal(free, rows)
    keep_in_range(kept, model, config)
    rewards, actions = kept[:, COMPOSUITE.reward], kept[:, COMPOSUITE.action]
    np.testing.assert_allclose((rewards.min(), rewards.max()), (0.2, 0.4), rtol=1e-6)
    assert np.abs(actions).max() <= 1
    assert kept[:, COMPOSUITE.terminal].any() == terminals
    np.testing.assert_array_equal(kept[:, COMPOSUITE.state], rows[:, COMPOSUITE.state])
