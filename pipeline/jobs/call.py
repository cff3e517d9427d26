"""What a job runs, and the note that it leaves beside its log for the loop.

The note of a stage, `note_<stage>.json` in the job's folder, says how it went (`running`, `done`, `error`,
`interrupted`, `timeout`), on which host, and what it used. The loop decides by it where the scheduler does not answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from pipeline.jobs.stage import Stage
from runtime import interrupt
from runtime.atomic import write_json
from runtime.device import DeviceError, expect_gpus
from runtime.errors import UserError, one_line
from runtime.logs import configure_logging
from runtime.records import read_optional

log = logging.getLogger(__name__)

_GRACE_SHARE = 0.5  # of the time between signal and end, for a step to end and be saved
_LINGER_SECONDS = 40
_TRACE_LINES = 8


@dataclass(frozen=True)
class Note:
    """What a job says of a stage. `started` is the time of day (s), `run` and `group` tell whose job it is.

    With an error: `user` where it is the user's to mend, `device` where it is the machine's; its `message`, the last
    lines of its `trace`.
    """

    stage: str
    outcome: str
    host: str
    started: float
    seconds: float
    memory_gb: float
    run: str = ""
    group: str = ""
    user: bool = False
    device: bool = False
    message: str = ""
    trace: tuple[str, ...] = ()


def slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def note_file(folder: Path, stage_name: str) -> Path:
    return folder / f"note_{slug(stage_name)}.json"


def read_note(folder: Path, stage_name: str) -> dict[str, Any] | None:
    """The note of a stage in its job's folder, as `Note` has it; None while there is none that can be used."""
    return read_note_file(note_file(folder, stage_name))


def read_note_file(path: Path) -> dict[str, Any] | None:
    note = read_optional(Note, path)
    return None if note is None else dataclasses.asdict(note)


@dataclass
class JobCall:
    """Runs stages one after another; called again after a requeue it goes on with those that are not done.

    `names`: the job's name in the scheduler for each stage. `logs`: where users look for the log of each stage.
    A stage that fails does not keep the next ones from running. `gpus`: those that it may use, where it is not the
    scheduler that says so (submitit hides those that a local job did not ask for, and can only ask by number).
    `granted_gpus`: how many it was given, and has to find.
    """

    stages: Sequence[Stage]
    names: Sequence[str]
    logs: Sequence[Path]
    run: Mapping[str, str]  # run, group: written into the note
    signal_seconds: int = 90  # how long before its limit the job gets a signal
    gpus: tuple[str, ...] = ()
    granted_gpus: int = 0

    def __call__(self) -> None:
        configure_logging()
        if self.gpus:  # CUDA has not started yet
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        expect_gpus(self.granted_gpus)
        environment = submitit.JobEnvironment()
        folder = environment.paths.folder
        _honour_signals(max(1, round(self.signal_seconds * _GRACE_SHARE)))
        failed: BaseException | None = None
        for stage, name, link in zip(self.stages, self.names, self.logs, strict=True):
            if len(self.stages) > 1 and stage.is_done():
                continue
            _link_log(link.with_name(f"{environment.job_id}_{link.name}"), environment.paths.stdout)
            _rename_job(name)
            failed = self._run(stage, folder) or failed
        if failed is not None:
            raise failed

    def _run(self, stage: Stage, folder: Path) -> Exception | None:
        started = time.time()

        def note(outcome: str, **more: Any) -> None:
            used = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            )
            record = {
                "stage": stage.name,
                "outcome": outcome,
                "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
                "started": round(started, 1),
                "seconds": round(time.time() - started, 1),
                "memory_gb": round(used / 2**20, 3),
                **self.run,
                **more,
            }
            # A note that cannot be written (a full disk) must not hide what it is about.
            with contextlib.suppress(OSError):
                write_json(note_file(folder, stage.name), record)

        note("running")
        try:
            stage()
        except interrupt.Interrupted:
            self._leave(note)
        except Exception as error:
            user, device = isinstance(error, UserError), isinstance(error, DeviceError)
            message = one_line(error) if user or device else f"{type(error).__name__}: {one_line(error)}"
            log.error("error: %s", message)
            trace = traceback.format_exc().strip().splitlines()[-_TRACE_LINES:]
            note("error", user=user, device=device, message=message, trace=[] if user or device else trace)
            return error
        note("done")
        return None

    def _leave(self, note: Any) -> None:
        """The stage has saved where it is. Before the limit the job queues itself again; else the system ends it."""
        signal.alarm(0)
        note("interrupted")
        if _received == signal.SIGTERM:
            log.warning("saved; asked to end")
            # Whoever asked kills or requeues the job now: ending by itself first would look like a failure.
            if "SLURM_JOB_ID" in os.environ:
                time.sleep(_LINGER_SECONDS)
            sys.exit(128 + signal.SIGTERM)
        try:
            _requeue(signal.SIGUSR2, None)
        except submitit.core.utils.UncompletedJobError:
            note("timeout")
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(dataclasses.replace(self))


_received: int | None = None
_requeue: Any = None


def _honour_signals(grace_seconds: int) -> None:
    """Signals ask the running stage to save and stop; one that does not within the grace is stopped as it is."""
    global _requeue
    own = submitit.JobEnvironment()._usr_sig()
    _requeue = signal.getsignal(own)

    def ask(signum: int, _frame: Any) -> None:
        global _received
        _received = signum
        interrupt.request(signum)
        log.warning("received %s: saving before the end", signal.Signals(signum).name)
        signal.alarm(grace_seconds)

    def insist(_signum: int, _frame: Any) -> None:
        raise interrupt.Interrupted

    for signum in {own, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}:
        signal.signal(signum, ask)
    signal.signal(signal.SIGALRM, insist)


def _link_log(link: Path, target: Path) -> None:
    """A link to the job's log under the name and in the folder where users look for it."""
    with contextlib.suppress(OSError):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))


def _rename_job(name: str) -> None:
    """An array's jobs share a name until they start; from then on squeue shows what each does."""
    if "SLURM_JOB_ID" not in os.environ:
        return
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "update", f"JobId={job}", f"JobName={name}"]
        subprocess.run(command, capture_output=True, timeout=30, check=False)
