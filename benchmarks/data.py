"""Reading a published data file into transitions, beside a copy to memory written before and one to fresh memory.

Example: python -m benchmarks.data --json data.json
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks.limits import Measurement, copy_rate, fresh_copy_rate, report
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import read_expert
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.main import run_main

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


def write_file(path: Path, rows: int) -> None:
    """Rows of noise in episodes of 500 steps, not compressed."""
    rng = np.random.default_rng(0)
    timeouts = np.arange(1, rows + 1) % 500 == 0
    with h5py.File(path, "w") as file:
        states = rng.random((rows, COMPOSUITE.state_dim), np.float32)
        file["observations"] = COMPOSUITE.join_ids(states, TASK.one_hot)
        file["actions"] = rng.random((rows, COMPOSUITE.action_dim), np.float32)
        file["rewards"] = file["successes"] = rng.random(rows, np.float32)
        file["terminals"], file["timeouts"] = np.zeros(rows, bool), timeouts


def main(rows: int = 1_000_000, quick: bool = False, json: Path | None = None) -> None:
    """Print seconds, bytes of transitions per second, the copy bandwidth and the ratio.

    Args:
        rows: of the file
        quick: 20,000 rows
        json: file for the figures
    """
    expect_sizes(rows=rows)
    rows = 20_000 if quick else rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.hdf5"
        write_file(path, rows)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the system would write it to the disk while it is read
        read_expert(path, TASK)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        transitions = read_expert(path, TASK)
        spent = time.perf_counter() - start
    size = sum(getattr(transitions, name).nbytes for name in transitions.arrays())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    fresh = fresh_copy_rate(size)
    note = f"{size / spent / fresh:.0%} of a copy to fresh memory ({fresh / 1e9:.1f} GB/s)"
    limit = copy_rate(torch.device("cpu"))
    row = Measurement("read HDF5 into transitions", f"{rows:,} rows", spent, size / spent, limit, "B/s", note)
    report([row], json, result_gigabytes=size / 1e9, peak_over_result=peak / size, peak_before_gigabytes=before / 1e6)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
