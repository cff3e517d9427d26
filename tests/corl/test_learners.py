"""A learner is a value in one registry: one of one's own trains, is saved, loaded and evaluated as the others are."""

import ast
import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import corl
from corl.bulk import train_policies
from corl.config import PolicyConfig
from corl.evaluate import evaluate
from corl.learner import Learner
from corl.learners import LEARNERS
from corl.policy import Policy, checkpoint_file
from corl.replay import ReplayData
from corl.run import PolicyRun
from corl.train import train_policy
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime.config import from_mapping, to_dict
from runtime.errors import ConfigError, DataError
from tests.corl.test_corl import CPU, LineWorld
from tests.recordings import random_transitions


@dataclass(frozen=True)
class SteeredConfig:
    learning_rate: float = 1e-2
    scale: float = 1.0


class SteeredActor(nn.Module):
    """A straight line through the state, squashed."""

    def __init__(self, state_dim, action_dim, scale):
        super().__init__()
        self.scale, self.line = scale, nn.Linear(state_dim, action_dim)

    def forward(self, states):
        return torch.tanh(self.scale * self.line(states))


class Steered(Learner):
    """Regression by Huber's loss: an actor, settings and a step that no other learner has."""

    Config = SteeredConfig
    trained = ("actor",)
    uses_rewards = False

    @classmethod
    def network(cls, name, state_dim, action_dim, config, seed=0):
        return SteeredActor(state_dim, action_dim, config.scale)

    def step(self, networks, batch, noise, number):
        huber = lambda actor, batch: nn.functional.huber_loss(actor(batch.states), batch.actions)  # noqa: E731
        loss = networks.call(huber, ("actor",), batch, learn="actor")
        networks.gradient_step("actor", loss)
        return {"huber": loss.detach()}


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(LEARNERS, "steered", Steered)
    values = {"algorithm": "steered", "learners": {"steered": {"scale": 0.5}}, "max_timesteps": 60, "eval_freq": 30}
    return from_mapping(PolicyConfig, {**values, "batch_size": 32, "n_episodes": 3}, source="own.yaml")


def _evaluate(policy, seeds):
    return evaluate(policy, LineWorld(), seeds)


def test_a_learner_of_ones_own_trains_is_saved_loaded_and_evaluated(config, tmp_path):
    transitions = random_transitions()
    data = ReplayData.of(transitions, config, COMPOSUITE, CPU)
    opened = functools.partial(PolicyRun, data, config, tmp_path, seed=1, device=CPU)
    scores = train_policy(opened(), _evaluate)
    path = checkpoint_file(tmp_path, "steered", "best_eval")
    policy = Policy.load(path, COMPOSUITE)
    assert isinstance(policy.actor, SteeredActor) and policy.actor.scale == 0.5
    run = opened()
    assert run.step == 60, "continued where it was left"
    errors = lambda policy: np.abs(policy(transitions.states) - transitions.actions).mean()  # noqa: E731
    fresh = Policy(config.actor(COMPOSUITE).requires_grad_(False), run.data.transform)
    assert errors(run.current_policy()) < 0.7 * errors(fresh)
    result = _evaluate(policy, range(3))
    assert result.mean_return == pytest.approx(scores.best_return, abs=1e-5)


def test_a_learner_of_ones_own_trains_in_a_group(config, tmp_path):
    data = ReplayData.of(random_transitions(), config, COMPOSUITE, CPU)
    opened = lambda name: [  # noqa: E731
        PolicyRun(data, config, tmp_path / name / str(seed), seed=seed, device=CPU) for seed in range(2)
    ]
    from concurrent.futures import Future

    def submit(position, policy, seeds):
        future = Future()
        future.set_result(_evaluate(policy, seeds))
        return future

    together, alone = opened("together"), opened("alone")
    train_policies(together, config, submit)
    for run, other in zip(alone, together, strict=True):
        while run.step < 60:
            list(run.advance(60 - run.step))
        for ours, theirs in zip(run.learner.actor.parameters(), other.learner.actor.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_settings_are_those_of_the_algorithm_and_others_are_checked_and_left_out(config):
    assert config.learner == SteeredConfig(scale=0.5)
    values = {"algorithm": "iql", "learners": {"td3_bc": {"alpha": 1.0}, "iql": {"beta": 2.0}}}
    chosen = from_mapping(PolicyConfig, values, source="c.yaml")
    assert chosen.learner.beta == 2.0 and list(to_dict(chosen)["learners"]) == ["iql"]
    for learners, message in (
        ({"td3_bc": {"alhpa": 1.0}}, r"c\.yaml: learners\.td3_bc: unknown key 'alhpa'; did you mean 'alpha'"),
        ({"td3": {}}, r"c\.yaml: algorithm 'td3': expected one of td3_bc, iql"),
        ({"iql": 3}, r"learners\.iql 3: expected a mapping"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_mapping(PolicyConfig, {"learners": learners}, source="c.yaml")


def test_a_checkpoint_of_an_algorithm_that_there_is_not_is_named(config, tmp_path, monkeypatch):
    data = ReplayData.of(random_transitions(), config, COMPOSUITE, CPU)
    train_policy(PolicyRun(data, config, tmp_path, seed=1, device=CPU), _evaluate)
    monkeypatch.delitem(LEARNERS, "steered")
    with pytest.raises(DataError, match=r"best_eval\.pt: algorithm 'steered', expected one of td3_bc, iql, bc, sac"):
        Policy.load(checkpoint_file(tmp_path, "steered", "best_eval"), COMPOSUITE)


def test_a_learner_is_a_copyable_value_of_its_networks_and_settings():
    for name, kind in LEARNERS.items():
        learner = kind.build(77, 8, kind.Config(hidden_dims=(8,)), seed=0, device=CPU, max_steps=5)
        twin = kind({n: copy.deepcopy(learner.modules[n]) for n in kind.trained}, learner.config, seed=0, device=CPU)
        assert learner.modules.keys() == twin.modules.keys(), name
        assert {*learner.networks.optimizers} == {*kind.trained}


def _edges(folder):
    files = {path.stem: path for path in folder.glob("*.py")}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{folder.name}."):
                yield name, node.module.split(".")[1]


def test_no_class_of_a_learner_passes_over_its_parents_constructor():
    for path in Path(corl.__file__).parent.glob("*.py"):
        assert "Learner.__init__" not in path.read_text(), path


@pytest.mark.parametrize("package", ["corl", "diffusion"])
def test_files_of_a_package_do_not_import_each_other_in_a_circle(package):
    edges = set(_edges(Path(corl.__file__).parent.parent / package))
    while edges:
        leaves = {target for _, target in edges} - {source for source, _ in edges}
        assert leaves, f"a circle among {sorted({source for source, _ in edges})}"
        edges = {edge for edge in edges if edge[1] not in leaves}
