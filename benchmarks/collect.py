"""Recording an expert: transitions per second, and the memory of a small and of a large collection.

Example: python -m benchmarks.collect --transitions 1000000 --workers 16 --json collect.json

Memory is the largest resident set of a recording process and of the one that joins the parts; it does not grow with the
number of transitions.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import task_file
from runtime.atomic import write_json
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.main import run_main
from runtime.program import PROJECT_ROOT


def measure(task: CompoSuiteTask, runs: int, workers: int) -> dict[str, Any]:
    """Record `runs` runs by the collector's own command; the figures of it."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        # As a process of its own, whose peak and whose children's peak the system then tells.
        command = [sys.executable, "-c", _MEASURED, "--tasks", task.name, "--episodes", str(runs)]
        command += ["--workers", str(workers), "--data_path", folder]
        printed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
        seconds = time.perf_counter() - start
        path = task_file(Path(folder), "expert", task)
        with h5py.File(path, "r") as file:
            rows = len(file["rewards"])
        size = path.stat().st_size
    joining, recording = (int(kilobytes) * 1024 for kilobytes in printed.split()[-2:])
    return {
        "runs": runs,
        "transitions": rows,
        "seconds": seconds,
        "per_second": rows / seconds,
        "file_bytes": size,
        "peak_bytes_recording": recording,
        "peak_bytes_joining": joining,
    }


_MEASURED = """
import atexit, resource, runpy
def peaks():
    print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
atexit.register(peaks)
if __name__ == "__main__":
    runpy.run_module("scripts.collect_expert_data", run_name="__main__")
"""


def main(
    task: str = "IIWA_Box_None_PickPlace",
    transitions: int = 100_000,
    workers: int = 0,
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Record a small and a large collection of a task and print both.

    Args:
        task: whose scripted expert is recorded
        transitions: about so many in the large one; the small one has a twentieth
        workers: processes (0: one per core)
        quick: 2,000 transitions
        json: file for the figures
    """
    from runtime.cpus import cpu_count

    chosen, workers = CompoSuiteTask.parse(task), workers or cpu_count()
    expect_sizes(transitions=transitions, workers=workers)
    transitions = 2_000 if quick else transitions
    small = measure(chosen, 10, workers)
    per_run = small["transitions"] / small["runs"]
    small = measure(chosen, max(1, round(transitions / 20 / per_run)), workers) if not quick else small
    large = measure(chosen, max(1, round(transitions / per_run)), workers)
    for row in (small, large):
        print(
            f"{row['transitions']:12,d} transitions in {row['seconds']:8.1f} s: {row['per_second']:7.0f} per second by "
            f"{workers} processes, file {row['file_bytes'] / 1e6:.1f} MB, largest process while recording "
            f"{row['peak_bytes_recording'] / 1e6:.0f} MB, while joining {row['peak_bytes_joining'] / 1e6:.0f} MB",
            flush=True,
        )
    if json:
        write_json(json, {"task": chosen.name, "workers": workers, "small": small, "large": large})


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
