"""Every fault that a loop has to survive, against a real SLURM. One command tries them all and writes down how it went:

    python -m tests.slurm.faults --times 3

makes docs/reliability.md. The faults are in `disturbances.py`; the results must be those of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config import config_hash
from tests.slurm.cluster import Cluster, throwaway_cluster
from tests.slurm.disturbances import FAULTS, Fault
from tests.slurm.runs import ROOT, Run, differing


@dataclass(frozen=True)
class Trial:
    """One try of a fault: seconds from the fault to the loop's end, or what went wrong."""

    fault: str
    seconds: float = 0.0
    problem: str = ""
    note: str = ""


def attempt(fault: Fault, cluster: Cluster, folder: Path, undisturbed: Undisturbed) -> Trial:
    """Try a fault once. Raises `AssertionError` where the loop did not survive it."""
    expected = undisturbed(fault)
    run = Run(cluster, folder, **fault.changes)
    if not fault.from_nothing:
        shutil.copytree(undisturbed.data, run.data)
    try:
        happened = fault.disturb(run)
        seconds = time.monotonic() - happened
        other = differing(run.digest(), expected)
        assert not other, f"other results than an undisturbed run: {other}"
        return Trial(fault.name, round(seconds, 1), note=run.note)
    finally:
        run.close()


class Undisturbed:
    """Results of runs that nobody disturbs, made once per training configuration, and the expert data of the last."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, fault: Fault) -> dict[str, Any]:
        training = fault.changes.get("training", {})
        key = json.dumps(training)
        run = Run(self.cluster, self.folder / f"undisturbed_{config_hash(key)}", training=training)
        self.data = run.data
        if key not in self._known:
            try:
                if not run.final_tables():
                    run.again()
                self._known[key] = run.digest()
            finally:
                run.close()
        return self._known[key]


def read_trials(file: Path) -> list[Trial]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Trial(**json.loads(line)) for line in lines]


def report(trials: list[Trial]) -> str:
    """docs/reliability.md."""
    lines = [
        "# Reliability",
        "",
        "You find here which faults the loop was put through, and which test holds what it does about them.",
        "",
        "Written by `python -m tests.slurm.faults`: every fault against a real SLURM (`tests/slurm/cluster.py`:",
        "controller, two nodes, accounting) and a real loop at a tiny size.",
        "",
        "A trial is good if the loop ends with the same generated sets, training curves, scores and tables as an",
        "undisturbed run with the same seeds. Where the fault is one that stops the loop, the same command is repeated",
        "once.",
        "",
        f"Machine: {os.cpu_count()} cores ({platform.machine()}), which did other work as well. The seconds are from",
        "the (last) fault to the end of the whole loop, so they hold what was left of it.",
        "",
        "| fault | what the loop does | tried | good | seconds to the end (median, longest) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fault in FAULTS:
        mine = [trial for trial in trials if trial.fault == fault.name]
        seconds = sorted(trial.seconds for trial in mine if not trial.problem)
        took = f"{seconds[len(seconds) // 2]:.0f}, {seconds[-1]:.0f}" if seconds else "-"
        lines.append(f"| {fault.name} | {fault.survives} | {len(mine)} | {len(seconds)} | {took} |")
    notes = [f"- {trial.fault}: {trial.note}" for trial in trials if trial.note]
    if notes:
        lines += ["", "## Notes", "", *notes]
    problems = [f"- {trial.fault}: {trial.problem}" for trial in trials if trial.problem]
    if problems:
        lines += ["", "## What went wrong", "", *problems]
    return "\n".join([*lines, "", *_HOW])


_HOW = (
    "## How some faults are made",
    "",
    "- The clock jumps for the loop and its jobs by a preloaded library (`tests/slurm/clock.c`): the time of day that",
    "  they are told jumps, the monotonic clock and files' times do not. The scheduler's daemons keep their time.",
    "- A node that is down is one whose slurmd and whose jobs' processes were killed and that the controller was told",
    "  is down.",
    "- A full disk is a small file system of its own that is filled to the last byte.",
    "- The memory limit is met by a second process within the job of the training.",
    "- A cut file is one of half its length, while no loop and no job ran.",
    "- An operator is another user with operator's rights in the accounting.",
    "",
    "What has no row here is held by other tests: exceptions of the program and of the GPU",
    "(`tests/pipeline/jobs/test_failures.py`, `tests/pipeline/jobs/test_jobs.py`), a lock whose holder is on",
    "another machine (`tests/runtime/test_lease.py`).",
    "",
)


def main(
    times: int = 1,
    only: str = "",
    minutes: float = 60.0,
    trials: Path = ROOT / ".cache" / "reliability.jsonl",
    output: Path = ROOT / "docs" / "reliability.md",
    undisturbed: Path | None = None,
) -> None:
    """Try every fault. What was tried before is not tried again: remove the file of trials to begin anew.

    Args:
        times: how often each
        only: parts of the names of the faults to try, separated by commas; default all
        minutes: begin no further trial after so long
        trials: where every trial is noted
        output: the table to write
        undisturbed: keep the undisturbed runs here for another call with the same code
    """
    begun = time.monotonic()
    trials.parent.mkdir(parents=True, exist_ok=True)
    for accounting in (True, False):
        tried = [trial.fault for trial in read_trials(trials)]
        wanted = [fault for fault in FAULTS if any(part in fault.name for part in only.split(","))]
        chosen = [fault for fault in wanted if fault.accounting == accounting]
        for fault in chosen:
            if fault.needs and not shutil.which(fault.needs):
                print(f"{fault.name}: not tried, since there is no {fault.needs} here", flush=True)
        chosen = [fault for fault in chosen if fault.needs is None or shutil.which(fault.needs)]
        # One after another, so that a run cut short has tried each about equally often.
        left = [fault for n in range(times) for fault in chosen if tried.count(fault.name) <= n]
        if not left or time.monotonic() - begun > 60 * minutes:
            continue
        with throwaway_cluster(accounting=accounting) as cluster, tempfile.TemporaryDirectory() as folder:
            expected = Undisturbed(cluster, undisturbed or Path(folder))
            for number, fault in enumerate(left):
                if time.monotonic() - begun > 60 * minutes:
                    break
                try:
                    trial = attempt(fault, cluster, Path(folder) / str(number), expected)
                except (AssertionError, TimeoutError, subprocess.SubprocessError, ValueError) as error:
                    trial = Trial(fault.name, problem=str(error).splitlines()[0])
                    print(error, flush=True)
                print(trial, flush=True)
                with trials.open("a") as file:
                    file.write(json.dumps(vars(trial)) + "\n")
    _, heading, held = output.read_text().partition("## What is held") if output.exists() else ("", "", "")
    output.write_text(report(read_trials(trials)) + heading + held)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is taken down then too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from runtime.cli import parse_flags
    from runtime.main import run_main

    run_main(lambda: parse_flags(main))
