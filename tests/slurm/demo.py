"""The loop on a throw-away SLURM cluster, from nothing, as a user of a cluster sees it:

    python -m tests.slurm.demo

A smaller `make demo` is started, looked at, left as by a lost connection while it trains, and continued by the same
command. The log is `results/demo_cluster/demo.log`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import yaml

from runtime.config import merge
from tests.slurm.cluster import Cluster, throwaway_cluster

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path("results") / "demo_cluster"
_ONE_CORE = {"memory_gb": 3, "hours": 1, "cpus": 1, "gpus": 0}

CHANGES: dict[str, Any] = {
    "max_iterations": 1,
    "collect": {"episodes": 15},
    "training": {"steps": 800},
    "sampling": {"num_samples": 4000},
    "policy": {"max_timesteps": 1000, "eval_freq": 500, "n_episodes": 5, "fresh_episodes": 10},
    "paths": {"data_path": f"{FOLDER}/data", "results_path": str(FOLDER), "logs_path": f"{FOLDER}/logs"},
    "resources": dict.fromkeys(("diffusion", "generation", "policy"), _ONE_CORE),
    "cluster": {"kind": "slurm", "poll_seconds": 2, "max_parallel": 2},
}


class Session:
    """Commands on a cluster, with what they print on the screen and in a log; none outlives the session."""

    def __init__(self, cluster: Cluster, log: TextIO) -> None:
        self.log = log
        self.processes: list[subprocess.Popen] = []
        self.environment = cluster.environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"}

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def start(self, *command: str) -> subprocess.Popen:
        self.say("$ " + shlex.join(["python", *command[1:]] if command[0] == sys.executable else command))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.processes.append(subprocess.Popen(command, cwd=ROOT, env=self.environment, **streams))
        return self.processes[-1]

    def follow(self, process: subprocess.Popen, until: str | None = None) -> int | None:
        """Pass on what it prints, to its end (gives the exit status) or until a line matches (gives None)."""
        for line in process.stdout:
            self.say(line.rstrip())
            if until and re.search(until, line):
                return None
        return process.wait()

    def run(self, *command: str) -> int | None:
        return self.follow(self.start(*command))

    def say(self, line: str) -> None:
        for stream in (sys.stdout, self.log):
            print(line, file=stream, flush=True)


def demo(session: Session) -> int | None:
    """Runs everything; gives the loop's exit status."""
    begun = time.monotonic()
    config = FOLDER / "config.yaml"
    values = merge(yaml.safe_load((ROOT / "config" / "pipeline" / "demo.yaml").read_text()), CHANGES)
    (ROOT / config).write_text(yaml.safe_dump(values, sort_keys=False))
    loop = [sys.executable, "-u", "-m", "scripts.automated_iterative_diffusion_dits_iiwa", "--config", str(config)]
    status = [sys.executable, "-m", "scripts.status", "--results_path", values["paths"]["results_path"]]
    session.run("sinfo")
    process = session.start(*loop)
    if session.follow(process, until=r"train .*: step ") is None:
        session.run("squeue", "-o", "%.6i %.12P %.70j %.2t %.8M %N")
        session.run(*status)
        session.say("^C")
        process.send_signal(signal.SIGINT)
        session.follow(process)
    ended = session.run(*loop)
    session.run(*status)
    session.run("sacct", "-X", "-o", "JobID%8,JobName%70,State%10,Elapsed%9")
    session.say(f"# {(time.monotonic() - begun) / 60:.1f} minutes on {os.cpu_count()} cores")
    return ended


def main() -> int:
    shutil.rmtree(ROOT / FOLDER, ignore_errors=True)
    (ROOT / FOLDER).mkdir(parents=True)
    with (ROOT / FOLDER / "demo.log").open("w") as log, throwaway_cluster() as cluster:
        session = Session(cluster, log)
        try:
            return demo(session) or 0
        finally:
            session.end()


if __name__ == "__main__":
    # The cluster is taken down then too; and what is started here can be interrupted, whoever started this.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.default_int_handler)
    sys.exit(main())
