import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_compositional_rl_datasets import hdf5
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import (
    Episode,
    find_task_file,
    read_expert,
    task_file,
    write_expert,
)
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.atomic import is_complete
from runtime.errors import DataError
from tests.benchmark_axes import benchmark_axes
from tests.conftest import ROOT
from tests.recordings import random_transitions

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


def episode(length, *, terminated=False, start=0.0):
    """Observations count upwards from `start`, so that a pair (s, s') shows where it came from."""
    steps = start + np.arange(length, dtype=np.float32)
    return Episode(
        states=np.repeat(steps[:, None], 77, axis=1),
        actions=np.zeros((length, 8), np.float32),
        rewards=steps,
        successes=np.zeros(length, np.float32),
        terminated=terminated,
    )


@pytest.fixture
def data_file(tmp_path):
    path = task_file(tmp_path, "expert", TASK)
    write_expert(path, [episode(5), episode(4, terminated=True, start=100), episode(3, start=200)], TASK)
    return path


def test_dropping_episode_ends_leaves_pairs_of_one_episode_and_every_terminal(data_file):
    data = read_expert(data_file, TASK)
    assert len(data) == (5 - 1) + 4 + (3 - 1)
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [7])
    assert data.rewards[7] == 103
    assert not data.timeouts.any()
    np.testing.assert_array_equal(data.next_states[7], data.states[7])
    others = ~data.terminals
    np.testing.assert_array_equal(data.next_states[others], data.states[others] + 1)


def test_dropping_keeps_a_reward_that_comes_with_the_last_terminal_of_the_file(tmp_path):
    """Sparse rewards: the one step that pays is the step that ends the task."""
    sparse = replace(episode(4, terminated=True), rewards=np.array([0, 0, 0, 1], np.float32))
    write_expert(tmp_path / "data.hdf5", [sparse], TASK)
    data = read_expert(tmp_path / "data.hdf5", TASK, episode_ends="drop")
    assert data.rewards.tolist() == [0, 0, 0, 1]
    assert data.terminals.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(data.next_states[:, 0], [1, 2, 3, 3])


def test_keeping_episode_ends_pairs_the_last_observation_with_itself(data_file):
    data = read_expert(data_file, TASK, episode_ends="self")
    assert len(data) == 12
    ends = data.terminals | data.timeouts
    np.testing.assert_array_equal(np.flatnonzero(ends), [4, 8, 11])
    np.testing.assert_array_equal(data.next_states[ends], data.states[ends])
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [8])


def test_the_published_pairing_across_episodes_can_be_reproduced(data_file):
    data = read_expert(data_file, TASK, episode_ends="reference")
    assert len(data) == 11
    assert data.next_states[4, 0] == 100
    assert data.timeouts[4]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8).filter(lambda lengths: max(lengths) > 1),
    block=st.integers(1, 7),
    chunk=st.sampled_from([None, 1, 3, 5]),
    episode_ends=st.sampled_from(["drop", "self", "reference"]),
    terminated=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_reading_in_blocks_gives_what_indexing_the_whole_file_gives(lengths, block, chunk, episode_ends, terminated):
    rows, last = sum(lengths), np.cumsum(lengths) - 1
    observations = np.random.default_rng(rows).normal(size=(rows, COMPOSUITE.observation_dim)).astype(np.float32)
    observations[:, COMPOSUITE.ids_slice] = TASK.one_hot
    ends, terminals = np.isin(np.arange(rows), last), np.zeros(rows, bool)
    terminals[last] = terminated[: len(last)]
    timeouts = ends & ~terminals
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(hdf5, "_ROWS_PER_CHUNK", block):
        path = Path(folder) / "data.hdf5"
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "observations", data=observations, chunks=None if chunk is None else (min(chunk, rows), 31)
            )
            file["actions"] = np.zeros((rows, 8), np.float32)
            file["rewards"] = file["successes"] = np.arange(rows, dtype=np.float32)
            file["terminals"], file["timeouts"] = terminals, timeouts
        data = read_expert(path, TASK, episode_ends=episode_ends)
    states = np.concatenate(
        [observations[:, : COMPOSUITE.ids_slice.start], observations[:, COMPOSUITE.ids_slice.stop :]], axis=1
    )
    row = np.arange(rows)
    pairs = {
        "drop": (row[~timeouts], np.where(ends, row, row + 1)[~timeouts]),
        "self": (row, np.where(ends, row, row + 1)),
        "reference": (row[:-1], row[1:]),
    }[episode_ends]
    np.testing.assert_array_equal(data.states, states[pairs[0]])
    np.testing.assert_array_equal(data.next_states, states[pairs[1]])
    np.testing.assert_array_equal(data.rewards, pairs[0])
    np.testing.assert_array_equal(data.timeouts, timeouts[pairs[0]])
    np.testing.assert_array_equal(data.terminals, terminals[pairs[0]])


def test_a_full_disk_stops_the_writing_with_an_error_and_leaves_no_file(tmp_path):
    """In a process of its own, whose files may not grow beyond 20 kB: the HDF5 library must not take it down."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from offline_compositional_rl_datasets.hdf5 import Episode, write_expert\n"
        "from offline_compositional_rl_datasets.composuite import CompoSuiteTask\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "x = np.random.default_rng(0).normal(size=(500, 77)).astype(np.float32)\n"
        "e = Episode(x, x[:, :8], x[:, 0], x[:, 0], False)\n"
        "try:\n"
        "    write_expert(Path(sys.argv[1]), [e], CompoSuiteTask.parse('IIWA_Box_None_Push'))\n"
        "except OSError as error:\n"
        "    print('stopped at', error.filename)\n"
    )
    path = tmp_path / "data.hdf5"
    result = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"stopped at {path}"
    assert list(tmp_path.iterdir()) == []


def test_both_published_folder_layouts_are_found(tmp_path, data_file):
    assert find_task_file(tmp_path, "expert", TASK) == data_file
    second = tmp_path / "medium" / TASK.name / "data.hdf5"
    write_expert(second, [episode(2)], TASK)
    assert find_task_file(tmp_path, "medium", TASK) == second


@benchmark_axes
def test_the_recorded_expert_data_reads_whole(shared):
    path = find_task_file(shared / "expert_data", "expert", TASK)
    assert len(read_expert(path, TASK)) == 3992
    assert len(read_expert(path, TASK, episode_ends="reference")) == 3999


def test_a_missing_file_names_both_places(tmp_path):
    with pytest.raises(DataError, match=r"expert-iiwa-offline-comp-data.*and .*expert"):
        find_task_file(tmp_path, "expert", TASK)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _replace(key, value):
    def change(path):
        with h5py.File(path, "a") as file:
            array = file[key][()]
            del file[key]
            if value is not None:
                file[key] = value(array)

    return change


def _with_nan(array):
    array[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated"),
        (_replace("rewards", None), "lacks rewards"),
        (_replace("actions", lambda a: a[:, :7]), r"actions has shape \(12, 7\), expected \(12, 8\)"),
        (_replace("rewards", _with_nan), "rewards has a value that is not finite in row 3"),
        (
            _replace("observations", lambda a: a[:, :77]),
            rf"observations has shape \(12, 77\), expected \(12, {COMPOSUITE.observation_dim}\)",
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(data_file, damage, message):
    damage(data_file)
    with pytest.raises(DataError, match=message) as error:
        read_expert(data_file, TASK)
    assert str(data_file) in str(error.value)


def test_a_file_of_another_task_is_refused(data_file):
    with pytest.raises(DataError, match="ids of another task"):
        read_expert(data_file, CompoSuiteTask.parse("IIWA_Box_None_PickPlace"))


def test_samples_read_back_with_the_published_keys(tmp_path):
    path = tmp_path / "samples_0.npz"
    written = random_transitions(40)
    write_samples(path, written, COMPOSUITE, {})
    assert is_complete(path)
    with np.load(path) as archive:
        assert set(archive.files) == {"observations", "actions", "rewards", "next_observations", "terminals"}
        assert archive["terminals"].dtype == np.float32
    back = read_samples(path, TASK, COMPOSUITE)
    for name in Transitions.arrays():
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))


def test_a_truncated_sample_file_is_named(tmp_path):
    path = tmp_path / "samples_0.npz"
    write_samples(path, random_transitions(40), COMPOSUITE, {})
    _truncate(path)
    assert not is_complete(path)
    with pytest.raises(DataError, match="truncated"):
        read_samples(path, TASK, COMPOSUITE)


def test_samples_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    path = tmp_path / "samples_0.npz"
    bad = random_transitions(40)
    bad.actions[1, 2] = np.inf
    with pytest.raises(DataError, match="actions has a value that is not finite in row 1"):
        write_samples(path, bad, COMPOSUITE, {})
    assert not path.exists()


def test_terminals_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "samples_0.npz"
    write_samples(path, random_transitions(40), COMPOSUITE, {})
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["terminals"][2] = np.nan
    path = tmp_path / "damaged.npz"  # without a checksum
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="terminals has a value that is not finite in row 2"):
        read_samples(path, TASK, COMPOSUITE)
