"""The practice stage on CompoSuite: a generated set, its generator and the simulator make a practised set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from corl.config import PolicyConfig
from corl.practice import Practice, PracticeConfig
from diffusion.conditional import given_states
from diffusion.config import SamplerConfig
from diffusion.model import DiffusionModel
from envs.pool import EnvPool
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import find_task_file
from offline_compositional_rl_datasets.samples import read_samples
from offline_compositional_rl_datasets.state_transform import StateTransform
from pipeline.jobs.stage import key_of
from pipeline.stages.generator import Generate
from pipeline.stages.paths import practised_file
from pipeline.stages.practice import Practise
from runtime import interrupt
from runtime.atomic import artifact_info
from runtime.config import config_hash, to_dict
from runtime.errors import StateError
from tests.generators import barely_trained

_CLIPPING = ("clip_actions", "clip_rewards", "clear_terminals")
KNOWN, NEW = CompoSuiteTask.parse("IIWA_Box_None_Push"), CompoSuiteTask.parse("IIWA_Box_None_PickPlace")
PRACTICE = PracticeConfig(
    rounds=2, episodes=3, members=2, hidden_dims=(16, 16), first_steps=20, steps=10, batch_size=32, control_steps=200
)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A barely trained generator and its set of a task without data."""
    from envs.collect import collect
    from envs.recording import CollectConfig

    folder = tmp_path_factory.mktemp("practice")
    collect([KNOWN], CollectConfig(episodes=2, horizon=40), folder / "data")
    assert find_task_file(folder / "data", "expert", KNOWN).exists()
    checkpoint = barely_trained(folder, KNOWN)
    sampling = SamplerConfig(solver="dpmpp_2m", steps=4, num_samples=100, batch_size=100, sigma_max=20)
    stage = Generate(NEW, checkpoint, sampling, 0)
    stage()
    return checkpoint, stage.output


def _stage(generated, **changes):
    checkpoint, samples = generated
    policy = PolicyConfig(horizon=12, hide_velocities=True)
    values = {"practice": PRACTICE, "sampling": SamplerConfig(), "policy": policy, "seed": 0, "threads": 1} | changes
    return Practise(NEW, checkpoint, samples, **values)


def test_a_practised_set_is_a_set_like_any_other_and_says_where_its_rows_come_from(generated):
    stage = _stage(generated)
    stage()
    assert stage.is_done() and stage.output == practised_file(generated[1])
    rows = read_samples(stage.output, NEW, COMPOSUITE)
    given = read_samples(generated[1], NEW, COMPOSUITE)
    practice = artifact_info(stage.output)["practice"]
    assert sum(practice["rows"].values()) == len(rows) == practice["rounds"][practice["round"]]["rows"]
    assert practice["rows"]["generated"] == len(given)
    np.testing.assert_array_equal(rows.states[: len(given)], given.states)
    steps = [done["control_steps"] for done in practice["rounds"]]
    assert practice["control_steps"] == sum(steps) <= PRACTICE.control_steps
    assert steps[0] == 3 * 12, "three episodes of the whole horizon"
    with pytest.raises(StateError, match="another configuration"):
        _stage(generated, seed=1).is_done()


def _practice(generated, folder):
    checkpoint, samples = generated
    model = DiffusionModel.load(checkpoint, COMPOSUITE, torch.device("cpu"))

    def expected(states):
        return given_states(model, states, NEW.one_hot, state_noise=0.2)

    environment = EnvPool(NEW, 3, horizon=12)
    given = read_samples(samples, NEW, COMPOSUITE)
    transform = StateTransform.fit(given.states, COMPOSUITE, hide_velocities=True, canonical_quaternions=True)
    return environment, Practice(
        *(given, expected, transform, PRACTICE, folder), seed=0, device=torch.device("cpu"), key="k"
    )


def test_labels_are_what_the_generator_expects_in_the_simulators_states(generated, tmp_path):
    environment, practice = _practice(generated, tmp_path)
    with environment, practice:
        practice.take_round(environment)
    labelled = practice.matrix[practice.origins == 1]
    assert 0 < len(labelled) <= 3 * 12
    model = DiffusionModel.load(generated[0], COMPOSUITE, torch.device("cpu"))
    again = given_states(model, labelled[:, COMPOSUITE.state], NEW.one_hot, state_noise=0.2)
    np.testing.assert_allclose(again, labelled, atol=1e-5)
    with EnvPool(NEW, 3, horizon=12) as fresh:
        states = fresh.reset([1, 2, 3])
    spread = labelled[:, COMPOSUITE.factor_slices["obstacle"]].std(axis=0)
    assert states.shape == (3, 77) and (spread < 2).all()


def test_a_practice_that_is_stopped_between_rounds_goes_on_to_the_same_set(generated, tmp_path):
    whole_environment, whole = _practice(generated, tmp_path / "whole")
    with whole_environment, whole:
        while not whole.finished:
            whole.take_round(whole_environment)
    environment, stopped = _practice(generated, tmp_path / "stopped")
    stopped.restore()
    with environment, pytest.raises(interrupt.Interrupted), stopped:
        stopped.take_round(environment)
        stopped.between_steps(stop=True)
    environment, resumed = _practice(generated, tmp_path / "stopped")
    assert resumed.restore()
    with environment, resumed:
        while not resumed.finished:
            resumed.take_round(environment)
    assert resumed.rounds == whole.rounds and len(whole.rounds) == 3
    np.testing.assert_array_equal(resumed.result().matrix, whole.result().matrix)


def test_an_option_that_is_off_leaves_the_keys_of_earlier_sets_and_one_that_is_on_does_not(generated):
    keys = {own_from: _stage(generated, practice=replace(PRACTICE, own_from=own_from)).key() for own_from in (0, 1, 2)}
    assert len(set(keys.values())) == 3
    practice = to_dict(PRACTICE)
    del practice["own_from"]  # as it was written before
    inputs = [*map(key_of, generated), NEW.name]
    bounds = [SamplerConfig().state_noise, *(getattr(SamplerConfig(), name) for name in _CLIPPING)]
    seen = [12, True, PolicyConfig().canonical_quaternions]
    assert keys[0] == config_hash([*inputs, practice, *bounds, *seen, 0])
