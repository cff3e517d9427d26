"""A tiny loop on a throw-away cluster as a process: start it, watch its log, disturb it, compare its results."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runtime.config import merge
from runtime.metrics import read_metrics
from tests.slurm.cluster import Cluster, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = "dit_tasklist0_train2_diffusionseed0"
TRAIN = f"train {RUN}_0"
SECONDS = 420.0

# One iteration, seven stages in five jobs of one thread, two at once; training is long enough to be met in its middle.
_CHANGES: dict[str, Any] = {
    "max_iterations": 1,
    "rl_seeds": [0],
    "training": {"steps": 1500, "checkpoint_seconds": 1.0},
    "cluster": {"kind": "slurm", "poll_seconds": 0.5, "max_parallel": 2, "tasks_per_job": 2},
    "retry": {"retry_delay": 0.5, "max_retries": 6},
}


class Run:
    """One results folder. Its loop can be started as often as needed."""

    def __init__(self, cluster: Cluster, folder: Path, /, **changes: Any) -> None:
        self.cluster, self.folder = cluster, folder
        folder.mkdir(parents=True, exist_ok=True)
        tiny = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
        self.settings = merge(merge(tiny, _CHANGES), changes)
        self.results, self.logs, self.log = folder / "results", folder / "logs", folder / "loop.out"
        self.data = folder / "data"
        self.process: subprocess.Popen | None = None
        self.environment: dict[str, str] = {}  # beside the cluster's
        self.siblings: list[Run] = []
        self.note = ""  # what a table of trials should say of this one

    def sibling(self, name: str, **changes: Any) -> Run:
        """Another run with the same settings but for `changes`, in a folder within this one's."""
        other = Run(self.cluster, self.folder / name)
        other.settings = merge(self.settings, changes)
        self.siblings.append(other)
        return other

    @property
    def name(self) -> str:
        return f"dit_tasklist0_train2_diffusionseed{self.settings.get('diffusion_seed', 0)}"

    def start(self) -> None:
        """Start (again); the output is added to `log`, from which `said` reads what is new."""
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        self._read_from = self.log.stat().st_size if self.log.exists() else 0
        environment = {
            **self.cluster.environment,
            "ICDG_DATA_PATH": str(self.data),
            "ICDG_RESULTS_PATH": str(self.results),
            "ICDG_LOGS_PATH": str(self.logs),
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        command = [sys.executable, "-u", "-m", "scripts.automated_iterative_diffusion_dits_iiwa"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(config)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    @property
    def output(self) -> str:
        """What the loop started last has printed."""
        return self.log.read_bytes()[self._read_from :].decode(errors="replace")

    def wait_until_said(self, pattern: str, seconds: float = SECONDS) -> None:
        if not self.says_before_its_end(pattern, seconds):
            raise AssertionError(f"the loop ended before it said {pattern!r}:\n{self.output[-3000:]}")

    def says_before_its_end(self, pattern: str, seconds: float = SECONDS) -> bool:
        """Wait until the loop says so or ends; whether it said so."""
        ended = False

        def settled() -> bool:
            nonlocal ended
            ended = self.process.poll() is not None
            return ended or re.search(pattern, self.output) is not None

        wait_for(settled, f"{pattern!r} in {self.log}", seconds)
        return re.search(pattern, self.output) is not None

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for the loop to end by itself; gives its exit status."""
        return self.process.wait(timeout=seconds)

    def finish(self) -> None:
        status = self.end()
        assert status == 0, self.output[-3000:]

    def again(self) -> None:
        """The same command once more, to its end."""
        self.start()
        self.finish()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        self.process.send_signal(signum)
        if signum == signal.SIGKILL:
            self.process.wait()

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        for run in (self, *self.siblings):
            if run.process is not None and run.process.poll() is None:
                run.process.kill()
                run.process.wait()
        self.cluster.run("scancel", "--user=root")
        wait_for(lambda: not self.cluster.run("squeue", "-h").stdout.strip(), "jobs to end")

    # Jobs

    @property
    def ledger(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.results / "loops" / self.name / "jobs.json").read_text())
        return {}

    def job_of(self, stage: str) -> str:
        return self.ledger.get(stage, {}).get("job_id", "")

    def wait_until_training(self) -> str:
        """Wait for a checkpoint in the middle of training; gives the job's id."""
        resume = self.results / "augmented_0" / "diffusion" / f"{self.name}_0" / "resume.pt"
        train = f"train {self.name}_0"
        self.wait_until_said("train the generator")
        wait_for(lambda: resume.exists() and self.job_of(train) != "", "a checkpoint of the training", 120)
        return self.job_of(train)

    def job_pids(self, job_id: str) -> list[int]:
        """Processes that run a stage in a job."""
        array, _, index = job_id.partition("_")
        wanted = [f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"] if index else [f"SLURM_JOB_ID={array}"]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().split(b"\0")
                if b"submitit.core._submit" not in command or not Path(command[0].decode()).name.startswith("python"):
                    continue
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                if all(
                    variable in variables for variable in (*wanted, f"SLURM_CONF={self.cluster.conf}", "SLURM_PROCID=0")
                ):
                    found.append(int(process.name))
        return found

    def jobs_per_stage(self) -> dict[str, int]:
        """How many jobs began to work on each stage."""
        counts: dict[str, int] = {}
        for note in (self.logs / "slurm").glob("*/note_*.json"):
            counts[note.name] = counts.get(note.name, 0) + 1
        return counts

    def final_tables(self) -> list[Path]:
        return sorted((self.logs / "policies_slurm_logs").glob("*/final_test_task_table_*.csv"))

    def digest(self) -> dict[str, Any]:
        """All that must not depend on what happened on the way: sets, training curves, scores, tables of this run."""
        found: dict[str, Any] = {}
        model, tables = f"{self.name}_*", f"policies_slurm_diffusionseed{self.settings.get('diffusion_seed', 0)}"
        for path in sorted(self.results.glob(f"augmented_*/diffusion/{model}/*/samples_0.npz")):
            with np.load(path) as arrays:
                found[str(path.relative_to(self.results))] = {
                    key: arrays[key].tobytes() for key in sorted(arrays.files)
                }
        for path in sorted(self.results.glob(f"augmented_*/*/{model}/**/metrics.jsonl")):
            rows = read_metrics(path)
            kept = [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]
            found[str(path.relative_to(self.results))] = kept
        for path in sorted(self.results.glob(f"augmented_*/policies/{model}/**/result.json")):
            found[str(path.relative_to(self.results))] = json.loads(path.read_text())["scores"]
        for path in sorted((self.logs / "policies_slurm_logs" / tables).glob("**/*.csv")):
            found[path.name] = path.read_text()
        return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what differs between two digests."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def half(path: Path) -> None:
    """Cut a file in its middle, as a lost machine leaves it."""
    os.truncate(path, path.stat().st_size // 2)
