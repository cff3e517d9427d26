"""Processes of one machine that train together hold one pool."""

import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import shared_pool as module
from diffusion.distributed import World, spawn
from diffusion.pool import Pool
from diffusion.shared_pool import shared_pool
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime.errors import DataError, UserError
from tests.diffusion.test_diffusion import TASKS
from tests.recordings import random_transitions

ROWS = 60


def _of_recordings(allocate, rows=ROWS):
    parts = [random_transitions(rows, task, seed=i) for i, task in enumerate(TASKS)]
    return Pool.of(parts, COMPOSUITE, allocate=allocate, timeouts_as_terminals=False)


def _shared(folder, prepare=None, rows=ROWS):
    """In each process: what it got, and whether it made that itself."""
    torch.set_num_threads(1)
    world = World.of_environment()
    if prepare:
        prepare(world)
    made = []

    def make(allocate):
        made.append(1)
        return _of_recordings(allocate, rows)

    with world.joined():
        pool = shared_pool(make, COMPOSUITE, world)
        world.gather(None)  # the first has returned as well
        left = list(Path(tempfile.gettempdir()).glob("icdg_pool_*"))
        np.savez(
            folder / f"{world.rank}.npz", made=len(made), left=len(left), **pool.__dict__ | {"layout": 0},
            private=_private(pool.matrix),
        )  # fmt: skip
        world.gather(None)  # neither ends before the other has looked


def _private(matrix):
    """The bytes of a mapped array that are this process' alone, after all of it was read; -1 where none is mapped."""
    matrix.sum()
    if not isinstance(matrix, np.memmap):
        return -1
    name, private = str(matrix.filename), None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            found = name in line
            private = (private or 0) if found else private
        elif found and line.startswith("Private_Dirty"):
            private += int(line.split()[1]) * 1024
    return private


def _results(folder, monkeypatch, *arguments):
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    spawn(_shared, 2, folder, *arguments)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def _expect_all(results, rows=ROWS):
    whole = _of_recordings(np.empty, rows)
    for result in results:
        for name in ("matrix", "task_index", "conditions"):
            np.testing.assert_array_equal(result[name], getattr(whole, name))


def test_a_process_alone_has_its_pool_in_its_own_memory():
    pool = shared_pool(_of_recordings, COMPOSUITE, World())
    assert type(pool.matrix) is np.ndarray
    np.testing.assert_array_equal(pool.matrix, _of_recordings(np.empty).matrix)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
def test_the_first_process_makes_the_pool_and_the_other_holds_no_copy(tmp_path, monkeypatch):
    rows = 4000
    results = _results(tmp_path, monkeypatch, None, rows)
    _expect_all(results, rows)
    assert [int(result["made"]) for result in results] == [1, 0]
    assert results[0]["matrix"].nbytes > 5e6
    assert results[1]["private"] == 0, "what it reads are the pages of the other"
    assert [int(result["left"]) for result in results] == [0, 0], "no file stays behind"


def _full_disk(world):
    def full(descriptor, start, size):
        raise OSError(28, "No space left on device")

    os.posix_fallocate = full


def _elsewhere(world):
    """As in containers with folders of their own."""
    if world.rank == 1:
        module._Array.map = lambda self, mode: np.memmap(self.path.with_name("missing"), self.dtype, mode)


@pytest.mark.parametrize("prepare", [_full_disk, _elsewhere])
def test_where_it_cannot_be_shared_each_process_makes_its_own(prepare, tmp_path, monkeypatch):
    results = _results(tmp_path, monkeypatch, prepare)
    _expect_all(results)
    assert [int(result["made"]) for result in results] == [1, 1]


def _broken():
    torch.set_num_threads(1)
    world = World.of_environment()

    def make(allocate):
        raise DataError("data.hdf5: no such file")

    with world.joined():
        shared_pool(make, COMPOSUITE, world)


def test_a_pool_that_cannot_be_made_ends_all_at_once_with_its_line():
    started = time.monotonic()
    with pytest.raises(UserError, match=r"data\.hdf5: no such file") as caught:
        spawn(_broken, 2)
    assert "Traceback" not in str(caught.value)
    assert time.monotonic() - started < 60
