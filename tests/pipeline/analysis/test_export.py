"""Exported data, read back by the loaders of those who get it."""

import os
import subprocess
import sys

import h5py
import minari
import numpy as np
import pytest

from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.export import (
    Card,
    from_minari,
    minari_id,
    minari_root,
    read_flat,
    write_flat,
    write_minari,
)
from offline_compositional_rl_datasets.hdf5 import Episode, read_expert, task_file, write_expert
from offline_compositional_rl_datasets.samples import write_samples
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages
from pipeline.loop.run import Run
from pipeline.loop.selection import Score
from pipeline.loop.state import Iteration
from pipeline.loop.state_file import save_state
from runtime.atomic import commit_artifact, write_json
from runtime.config import to_dict
from runtime.errors import ConfigError, DataError, StateError
from scripts.export_data import main as export_data
from scripts.load_example import main as load_example
from tests.recordings import random_transitions

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")
CARD = Card("a title", TASK, "made for a test", "0.50", "CC0-1.0", {"seed": 7})


def _episode(steps, *, terminated, seed):
    random = np.random.default_rng(seed)
    successes = np.zeros(steps)
    successes[-2:] = 1
    return Episode(
        random.standard_normal((steps, 77)).astype(np.float32),
        random.uniform(-1, 1, (steps, 8)).astype(np.float32),
        random.random(steps).astype(np.float32),
        successes,
        terminated,
    )


@pytest.fixture
def source(tmp_path):
    """A task's file with an episode that was cut off and one that terminated."""
    path = task_file(tmp_path / "data", "expert", TASK)
    write_expert(path, [_episode(6, terminated=False, seed=0), _episode(4, terminated=True, seed=1)], TASK)
    return path


def test_minaris_own_loader_reads_an_export_back(source, tmp_path):
    name = minari_id("composuite", TASK, "expert")
    write_minari(source, name, tmp_path / "out", CARD)
    with minari_root(tmp_path / "out"):
        assert name in minari.list_local_datasets()
        dataset = minari.load_dataset(name)
    assert dataset.total_episodes == 2
    cut, ended = dataset.iterate_episodes()
    first, second = _episode(6, terminated=False, seed=0), _episode(4, terminated=True, seed=1)
    np.testing.assert_array_equal(cut.observations, first.states)
    np.testing.assert_array_equal(cut.actions, first.actions[:5])
    np.testing.assert_array_equal(ended.observations[:4], second.states)
    np.testing.assert_allclose(ended.rewards, second.rewards)
    assert (cut.terminations.any(), cut.truncations.tolist()) == (False, [False] * 4 + [True])
    assert (ended.truncations.any(), ended.terminations.tolist()) == (False, [False] * 3 + [True])
    assert cut.infos["success"].tolist() == [False] * 5 + [True]


def test_the_transitions_of_an_export_are_those_that_training_reads(source, tmp_path):
    name = minari_id("composuite", TASK, "expert")
    back = from_minari(write_minari(source, name, tmp_path / "out", CARD), TASK)
    direct = read_expert(source, TASK, episode_ends="drop")
    for key in ("states", "actions", "rewards", "next_states", "terminals"):
        np.testing.assert_allclose(getattr(back, key), getattr(direct, key))
    assert direct.terminals.sum() == 1


def test_a_card_tells_what_the_data_are(source, tmp_path):
    write_minari(source, minari_id("composuite", TASK, "expert"), tmp_path / "out", CARD)
    card = (tmp_path / "out" / "composuite" / TASK.name / "expert-v0" / "README.md").read_text()
    for part in ("made for a test", "2 episodes, 9 steps", "0.50", "CC0-1.0", "proprioception 45:77", "- seed: 7"):
        assert part in card


def test_nothing_is_overwritten(source, tmp_path):
    name = minari_id("composuite", TASK, "expert")
    write_minari(source, name, tmp_path / "out", CARD)
    with pytest.raises(StateError, match="there already"):
        write_minari(source, name, tmp_path / "out", CARD)
    write_flat(random_transitions(), tmp_path / "flat", CARD)
    with pytest.raises(StateError, match="there already"):
        write_flat(random_transitions(), tmp_path / "flat", CARD)


def test_flat_transitions_are_plain_hdf5_with_the_usual_keys(tmp_path):
    transitions = random_transitions()
    path = write_flat(transitions, tmp_path, CARD)
    with h5py.File(path) as file:
        assert set(file) == {"observations", "actions", "rewards", "next_observations", "terminals", "timeouts"}
        np.testing.assert_array_equal(file["next_observations"][()], transitions.next_states)
    back = read_flat(path, CompoSuiteTask)
    assert back.task == TASK
    np.testing.assert_array_equal(back.actions, transitions.actions)
    (tmp_path / "other.hdf5").write_bytes(b"no")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        read_flat(tmp_path / "other.hdf5", CompoSuiteTask)


def test_the_commands_export_a_run_and_expert_data_and_a_policy_learns_from_both(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    runs = record(TASK, CollectConfig(episodes=1, horizon=30), [0], lambda observations: np.zeros((1, 8)))
    write_expert(task_file(data, "expert", TASK), runs[0].episodes, TASK)
    export_data(out, tasks=(TASK.name,), data_path=data)
    with minari_root(out / "minari"):
        dataset = minari.load_dataset(minari_id("composuite", TASK, "expert"))
        environment = dataset.recover_environment()
    assert environment.spec.id == f"CompoSuite/{TASK}-v0"
    assert environment.observation_space == dataset.observation_space

    run = Run.of(load_pipeline_config(None, {"paths": {"results_path": tmp_path / "results"}, "rl_seeds": (0,)}))
    target = run.tasks.test[0]
    it = Iteration(0, (target,), {}, None, scores={target: {0: Score(7, 10)}})
    run = run.at(run.state.begin(it))
    save_state(run.state_file, run.state)
    write_json(run.folder / "config.json", to_dict(run.config))
    write_samples(generation_stages(run, it)[0].output, random_transitions(600), COMPOSUITE, {"rows": 600})
    export_data(out, run=run.folder, licence="CC0-1.0")
    folder = out / "transitions" / target.name / "generated-v0"
    assert "0.70 (7 of 10 episodes) of TD3+BC policies" in (folder / "README.md").read_text()
    for dataset in (minari_id("composuite", TASK, "expert"), f"transitions/{target}/generated-v0/transitions.hdf5"):
        load_example(out, dataset, steps=3, episodes=1, horizon=5)
        assert "of 1 episodes solved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "random_share", "origin"),
    [
        (None, (0.0, 0.0), "scripted expert\n"),
        (
            None,
            (0.2, 0.5),
            "scripted expert, acting at random for 20% to 50% of its time\n",
        ),
        ("state_dicts.pt", (0.0, 0.0), "published policy\n"),
    ],
)
def test_a_card_says_who_acted(tmp_path, policy, random_share, origin):
    config = CollectConfig(episodes=1, horizon=30, random_share=random_share)
    runs = record(TASK, config, [0], lambda observations: np.zeros((1, 8)))
    commit_artifact(
        task_file(tmp_path, "expert", TASK),
        lambda temporary: write_expert(temporary, runs[0].episodes, TASK),
        {**to_dict(config), "policy": policy},
    )
    export_data(tmp_path / "out", tasks=(TASK.name,), data_path=tmp_path)
    folder = tmp_path / "out" / "minari" / minari_id("composuite", TASK, "expert")
    assert f"- **Origin:** recorded with this project: {origin}" in (folder / "README.md").read_text()
    with minari_root(tmp_path / "out" / "minari"):
        dataset = minari.load_dataset(minari_id("composuite", TASK, "expert"))
    assert dataset.storage.metadata["algorithm_name"] == f"recorded with this project: {origin.strip()}"


def test_minaris_own_list_bears_the_other_formats_beside_it(source, tmp_path):
    data, out = source.parents[2], tmp_path / "out"
    runs = record(TASK, CollectConfig(episodes=1, horizon=30), [0], lambda observations: np.zeros((1, 8)))
    write_expert(source, runs[0].episodes, TASK)
    for format in ("minari", "lerobot"):
        export_data(out, tasks=(TASK.name,), data_path=data, format=format)
    assert {path.name for path in out.iterdir()} == {"minari", "lerobot"}
    with minari_root(out / "minari"):
        assert list(minari.list_local_datasets()) == [minari_id("composuite", TASK, "expert")]
    listed = subprocess.run(
        [sys.executable, "-m", "minari.cli", "list", "local"], capture_output=True, text=True,
        env={**os.environ, "MINARI_DATASETS_PATH": str(out / "minari"), "COLUMNS": "200"},
    )  # fmt: skip
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert TASK.name in listed.stdout


def test_an_export_of_nothing_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="expected --run or --tasks"):
        export_data(tmp_path)
    with pytest.raises(DataError, match="no expert data"):
        export_data(tmp_path, tasks=(TASK.name,), data_path=tmp_path)
