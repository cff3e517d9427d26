"""What SLURM says: its commands' answers as values. An unanswered query means that nothing is known."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from runtime import surroundings
from runtime.errors import JobError

_QUERY_SECONDS = 60
_ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD",
          "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "RESV_DEL_HOLD")  # fmt: skip


@dataclass(frozen=True)
class JobInfo:
    """One line of squeue or sacct."""

    state: str
    reason: str = ""
    node: str = ""
    comment: str = ""

    @property
    def alive(self) -> bool:
        """Whether the job has not ended."""
        return self.state.startswith(_ALIVE)


def parse_queue(text: str) -> dict[str, JobInfo]:
    """Job id (`123` or `123_4`) -> its line, of `squeue -o %i|%T|%r|%N|%k`."""
    jobs = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) == 5:
            jobs[parts[0]] = JobInfo(parts[1], parts[2], parts[3], parts[4])
    return jobs


def parse_accounting(text: str) -> dict[str, JobInfo]:
    """Job id -> its line, of `sacct -X -P -n -o JobID,State,NodeList`."""
    jobs = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 3:
            jobs[parts[0]] = JobInfo(parts[1], node=parts[2])
    return jobs


def cancelled_by_user(state: str, uid: int) -> bool | None:
    """Whether `CANCELLED by 1000` names this user; None where the state names nobody."""
    words = state.split()
    return int(words[2]) == uid if len(words) == 3 and words[2].isdigit() else None


def expect_cluster() -> None:
    """Raises `JobError` where a command of SLURM is missing, or SLURM is installed but knows no cluster."""
    missing = [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]
    if "sbatch" not in missing:
        # It reads the configuration before anything else, and does not ask the controller, which may be away.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answer = _run("sbatch", "--version")
            if answer.returncode:
                words = " ".join(answer.stderr.split()) or f"exit status {answer.returncode}"
                raise JobError(f"cluster slurm: sbatch cannot be used here ({words}); use --cluster local")
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise JobError(
            f"cluster slurm: {', '.join(missing)} {are} not on the PATH of this machine; use --cluster local"
        )


def ask(*command: str) -> str | None:
    """What a command of the scheduler prints; None where it gives no answer."""
    try:
        answer = _run(*command)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    with surroundings.left_out():
        return subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)


def queue() -> dict[str, JobInfo] | None:
    """All jobs of this user that the controller remembers, ended ones too; None for no answer."""
    answer = ask("squeue", "-h", "-r", "--states=all", f"--user={os.getuid()}", "-o", "%i|%T|%r|%N|%k")
    return None if answer is None else parse_queue(answer)


def accounting(job_ids: Sequence[str]) -> dict[str, JobInfo]:
    """What the accounting says of those jobs: nothing where there is none or it does not answer."""
    if not job_ids:
        return {}
    answer = ask("sacct", "-X", "-P", "-n", "-o", "JobID,State,NodeList", "-j", ",".join(job_ids))
    return parse_accounting(answer or "")
