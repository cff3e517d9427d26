"""Cloned policies: ensembles as one network, averaged weights, and noise when acting."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from corl.acting import CERTAIN, Acting
from corl.bc import BC, BCConfig
from corl.bulk import train_policies
from corl.config import PolicyConfig
from corl.evaluate import evaluate
from corl.networks import Actor, EnsembleActor
from corl.policy import Policy, checkpoint_file
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.errors import ConfigError
from runtime.resumable import RESUME_FILE
from runtime.seeds import derive_seed
from tests.corl.test_bulk import PAIRS, SETS, _alone, _runs, _submit
from tests.corl.test_corl import CPU, LineWorld, _batch

SMALL = BCConfig(hidden_dims=(16, 16), members=3)


def _config(**options):
    values = {"algorithm": "bc", "max_timesteps": 24, "batch_size": 16, "eval_freq": 8, "n_episodes": 3}
    return PolicyConfig(**({**values, "fresh_episodes": 4, "learners": {"bc": SMALL}} | options))


def _plain_clone(seed, batches, config):
    """An actor trained alone by torch's own Adam, and the running average of its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        actor = Actor(77, 8, config.hidden_dims)
    average = copy.deepcopy(actor)
    optimizer = torch.optim.Adam(actor.parameters(), config.learning_rate)
    for i, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * i / len(batches)))
        optimizer.zero_grad()
        F.mse_loss(actor(batch.states), batch.actions).backward()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(average.parameters(), actor.parameters(), strict=True):
                p.lerp_(q, max(config.tau, 1 / (i + 1)))
    return actor, average


def test_a_member_of_an_ensemble_equals_a_network_trained_alone():
    batches = [_batch(seed=i) for i in range(12)]
    learner = BC.build(77, 8, SMALL, seed=5, device=CPU, max_steps=len(batches))
    for batch in batches:
        learner.update(batch)
    states = _batch(seed=99).states
    together = {name: net(states, True) for name, net in learner.modules.items()}
    for i in range(SMALL.members):
        actor, average = _plain_clone(derive_seed("member", 5, i), batches, SMALL)
        torch.testing.assert_close(together["actor"][i], actor(states), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together["actor_target"][i], average(states), atol=1e-5, rtol=1e-4)
    assert (together["actor"][0] - together["actor"][1]).abs().max() > 1e-2, "members differ"


def test_an_ensemble_acts_by_the_mean_of_its_members():
    actor, states = EnsembleActor(77, 8, (16,), [1, 2, 3]), torch.randn(7, 77)
    torch.testing.assert_close(actor(states), actor(states, True).mean(0))
    assert actor(states).shape == (7, 8)


def test_policies_cloned_together_equal_each_alone(tmp_path):
    config = _config()
    alone = _alone(config, tmp_path / "alone")
    together = train_policies(_runs(config, tmp_path / "bulk"), config, _submit)
    assert [one.fresh_solved for one in alone] == [two.fresh_solved for two in together]
    for d, seed in PAIRS:
        one, two = (
            torch.load(tmp_path / name / f"{d}_{seed}" / RESUME_FILE, weights_only=True)["learner"]
            for name in ("alone", "bulk")
        )
        for name in ("actor", "actor_target"):
            torch.testing.assert_close(one[name], two[name], atol=2e-5, rtol=1e-4)


def test_the_policy_that_acts_has_the_averaged_weights(tmp_path):
    config = _config(act_noise=0.25, binary_hold=10)
    (run, *_) = _runs(config, tmp_path, PAIRS[:1])
    train_policies([run], config, _submit)
    path = checkpoint_file(run.folder, "bc", "best_successrate")
    policy, saved = Policy.load(path, COMPOSUITE), torch.load(path, weights_only=True)
    assert policy.acting == Acting(0.25, 10, (7,))
    actor = EnsembleActor(77, 8, (16, 16), range(3))
    actor.load_state_dict(saved["actor_target"])
    states = SETS[0].states[:5]
    normalised = torch.from_numpy(StateTransform.load(saved["states"], COMPOSUITE, "policy").apply(states))
    np.testing.assert_allclose(policy(states), actor(normalised).detach().numpy(), atol=1e-5)
    assert any(not torch.equal(saved["actor"][key], saved["actor_target"][key]) for key in saved["actor"])


class _Recorder(LineWorld):
    """Keeps what each episode's policy did, by its seed."""

    def __init__(self):
        self.seen = {}

    def step(self, actions):
        for seed, action in zip(self.seeds, actions, strict=True):
            self.seen.setdefault(int(seed), []).append(action)
        return super().step(actions)


class _Still:
    acting = Acting(noise=0.2)

    def __call__(self, observations):
        return np.full((len(observations), 8), 0.5, np.float32)


def test_an_episodes_noise_follows_from_its_seed_alone():
    together, apart = _Recorder(), _Recorder()
    evaluate(_Still(), together, [3, 1, 4, 15, 9, 2])
    for seed in (2, 15, 4, 9, 1, 3):
        evaluate(_Still(), apart, [seed])
    assert together.seen.keys() == apart.seen.keys()
    for seed, actions in together.seen.items():
        np.testing.assert_array_equal(actions, apart.seen[seed])
    deviations = np.concatenate(list(together.seen.values())) - 0.5
    assert 0.15 < deviations.std() < 0.25
    assert np.abs(np.concatenate(list(together.seen.values()))).max() <= 1.0


def test_noise_stays_within_the_actions_range_and_none_changes_nothing():
    loud = _Still()
    loud.acting = Acting(noise=5.0)
    recorder = _Recorder()
    evaluate(loud, recorder, [0, 1])
    assert np.abs(np.concatenate(list(recorder.seen.values()))).max() == 1.0
    quiet = _Still()
    quiet.acting = Acting()
    recorder = _Recorder()
    evaluate(quiet, recorder, [0, 1])
    assert (np.concatenate(list(recorder.seen.values())) == 0.5).all()


@pytest.mark.parametrize(("name", "value"), [("members", 0), ("tau", 0.0), ("tau", 1.5), ("learning_rate", 0.0)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        BCConfig(**{name: value})


@pytest.mark.parametrize("value", [{"act_noise": -0.1}, {"binary_hold": -1}])
def test_acting_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=next(iter(value))):
        PolicyConfig(**value)


@pytest.mark.parametrize("expected", [-1.0, -0.81, -0.5, 0.0, 0.6, 0.81, 1.0])
def test_the_sign_of_a_binary_command_is_drawn_by_its_expectation_and_held(expected):
    count, steps, hold = 400, 20, 5
    variation = Acting(binary_hold=hold, binary=(1,)).begin(range(count))
    actions = np.full((count, 3), expected, np.float32)
    done = np.stack([variation.on(actions) for _ in range(steps)])
    signs = done[..., 1]
    assert set(np.unique(signs)) <= {-1.0, 1.0}
    assert (signs.reshape(-1, hold, count) == signs[::hold][:, None]).all()  # one draw for so many steps
    assert (signs[::hold] != signs[0]).any() == (abs(expected) < CERTAIN)  # and then another, unless it is certain
    mean = np.clip(expected / CERTAIN, -1, 1)
    assert abs(signs.mean() - mean) <= 4 * np.sqrt((1 - mean**2) / signs[::hold].size)
    np.testing.assert_array_equal(done[..., [0, 2]], np.broadcast_to(actions[:, [0, 2]], (steps, count, 2)))
    assert (actions == np.float32(expected)).all()  # the policy's own array is left as it is
