"""The generator is tied to a layout, not to CompoSuite: the worked example of another family."""

import functools

import numpy as np
import pytest
import torch
import yaml

from corl.config import PolicyConfig
from corl.evaluate import evaluate
from corl.replay import ReplayData
from corl.run import PolicyRun
from corl.train import train_policy
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig, build
from diffusion.generate import generate, keep_in_range
from diffusion.model import DiffusionModel
from diffusion.pool import Pool
from diffusion.train import train
from envs.pool import EnvPool
from envs.recording import CollectConfig, record
from examples.point_family import AXES, FAMILY, LAYOUT
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.hdf5 import Episode, read_expert, task_file, write_expert
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.config import from_mapping
from runtime.errors import DataError
from tests.conftest import ROOT

TASKS = FAMILY.tasks()


def _recorded(runs):
    """Transitions of the first task's expert, 25 a run."""
    config = CollectConfig(episodes=runs, horizon=26, shove_every=0, linger=26)
    episodes = [
        episode for run in record(TASKS[0], config, range(runs), FAMILY.expert(TASKS[0])) for episode in run.episodes
    ]
    never = np.zeros(25 * runs, bool)
    states = [episode.states for episode in episodes]
    return Transitions(
        states=np.concatenate([part[:-1] for part in states]),
        actions=np.concatenate([episode.actions[:-1] for episode in episodes]),
        rewards=np.concatenate([episode.rewards[:-1] for episode in episodes]),
        next_states=np.concatenate([part[1:] for part in states]),
        terminals=never,
        timeouts=never,
        task=TASKS[0],
    )


def test_the_layout_of_another_family_has_its_own_tokens_and_sizes():
    layout = LAYOUT
    assert (layout.state_dim, layout.condition_dim, layout.transition_dim) == (8, 8, 20)
    assert [token.name for token in layout.tokens] == [
        "s_body", "s_place", "s_wind", "action", "reward", "next_body", "next_place", "next_wind", "terminal",
    ]  # fmt: skip
    network = build(layout, DenoiserConfig(hidden=16, depth=1, heads=2))
    assert network.encoders["body"].weight.shape == (2, 2, 16), "an encoder per body"
    assert network.encoders["place"].weight.shape == (3, 4, 16)


def test_the_held_out_tasks_are_new_combinations_of_known_elements(tmp_path):
    split = FAMILY.split("default", 0, tmp_path)
    assert (len(split.train), len(split.test)) == (12, 6)
    for axis, elements in AXES.items():
        assert {getattr(task, axis) for task in split.train} == set(elements)


def test_transitions_of_another_family_go_through_a_matrix_and_back():
    layout = LAYOUT
    data = _recorded(2)
    back = type(data).from_matrix(data.to_matrix(layout, timeouts_as_terminals=True), TASKS[0], layout)
    np.testing.assert_array_equal(back.next_states, data.next_states)
    data.validate("demonstrations", layout)


def test_samples_of_another_family_are_written_and_read(tmp_path):
    layout, path = LAYOUT, tmp_path / "samples_0.npz"
    data = _recorded(2)
    write_samples(path, data, layout, {})
    back = read_samples(path, TASKS[0], layout)
    for name in ("states", "actions", "rewards", "next_states", "terminals"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    with pytest.raises(DataError, match=r"observations has shape \(50, 8\), expected \(50, 77\)"):
        read_samples(path, None, COMPOSUITE)
    with pytest.raises(DataError, match=r"observations has shape \(50, 8\), expected \(50, 77\)"):
        write_samples(tmp_path / "other.npz", data, COMPOSUITE, {})
    assert not (tmp_path / "other.npz").exists()


def test_recorded_actions_of_another_family_are_checked_when_they_are_read(tmp_path):
    path, task = tmp_path / "data.hdf5", TASKS[0]
    data = _recorded(1)
    for largest in (1.0, -40.0):
        data.actions[3, 1] = largest
        write_expert(path, [Episode(data.states, data.actions, data.rewards, data.rewards, True)], task)
        if largest == 1.0:
            np.testing.assert_array_equal(read_expert(path, task).actions, data.actions)
    with pytest.raises(DataError, match=r"actions has -40 in row 3, expected actions in \[-1, 1\]"):
        read_expert(path, task)


def test_clones_of_what_the_generator_makes_solve_tasks_that_nobody_demonstrated(tmp_path):
    """The example's own generator after 700 of its 1,200 steps, on fewer runs; small clones for its policies."""
    example = yaml.safe_load((ROOT / "examples" / "point_family.yaml").read_text())
    recording = from_mapping(CollectConfig, {**example["collect"], "episodes": 12}, source="example")
    split, cpu = FAMILY.split("default", 0), torch.device("cpu")
    parts = []
    for task in split.train:
        runs = record(task, recording, range(recording.episodes), FAMILY.expert(task))
        write_expert(task_file(tmp_path, "expert", task), [episode for run in runs for episode in run.episodes], task)
        parts.append(FAMILY.read_data(FAMILY.data_file(tmp_path, "expert", task), task, episode_ends="drop"))
    training = from_mapping(TrainConfig, {**example["training"], "steps": 700}, source="example")
    network = from_mapping(DenoiserConfig, example["network"], source="example")
    train(Pool.of(parts, LAYOUT, timeouts_as_terminals=False), network, training, tmp_path / "m.pt", seed=0, device=cpu)
    model, sampling = DiffusionModel.load(tmp_path / "m.pt", LAYOUT, cpu), SamplerConfig(**example["sampling"])
    clone = PolicyConfig("bc", 400, 128, 400, 20, horizon=25, learners={"bc": {"hidden_dims": [64, 64]}})
    solved = []
    for task in split.test[:3]:
        rows = generate(model, task.one_hot, sampling, seed=0)
        keep_in_range(rows, model, sampling)
        data = ReplayData.of(Transitions.from_matrix(rows, task, LAYOUT), clone, LAYOUT, cpu)
        with EnvPool(task, 20, horizon=25) as environment:
            judge = functools.partial(_judge, environment)
            run = PolicyRun(data, clone, tmp_path / task.name, seed=0, device=cpu)
            solved.append(train_policy(run, judge).best_solved)
    assert min(solved) >= 12 and sum(solved) >= 48, f"{solved} of 20 episodes each"


def _judge(environment, policy, seeds):
    return evaluate(policy, environment, seeds)
