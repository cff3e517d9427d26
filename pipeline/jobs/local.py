"""Jobs on this machine: they wait for free cores and GPUs, since submitit's local executor starts all at once."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import submitit

from pipeline.jobs.attempts import Attempt, Group
from pipeline.jobs.call import JobCall, read_note, slug
from pipeline.jobs.failures import Evidence, Failure
from pipeline.jobs.resources import Resources
from runtime import interrupt, surroundings
from runtime.cpus import cpu_count
from runtime.device import visible_gpus

log = logging.getLogger(__name__)

_TAIL_BYTES = 4096
_STOP_SECONDS = 15.0  # that jobs have to save on Ctrl-C
_SPINS = "3000"  # turns that an idle thread of OpenMP waits awake: libgomp's own 300,000 starve what runs beside


def tail(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


class LocalSite:
    """This machine as a place where jobs run."""

    kind = "local"
    poll_seconds = 0.2

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # for the jobs, which inherit it
        self.cores = cpu_count()
        self.gpus = visible_gpus()

    def fits(self, attempt: Attempt, running: Sequence[Attempt]) -> bool:
        if self._gpu_count(attempt) > len(self.free_gpus(running)):
            return False
        return not running or sum(map(self._cores, running)) + self._cores(attempt) <= self.cores

    def _gpu_count(self, attempt: Attempt) -> int:
        return min(attempt.resources.gpus, len(self.gpus))

    def free_gpus(self, running: Sequence[Attempt]) -> list[str]:
        taken = {gpu for attempt in running for gpu in attempt.gpus}
        return [gpu for gpu in self.gpus if gpu not in taken]

    def fixed_memory(self, resources: Resources) -> str | None:
        """None: jobs on this machine share its memory, and a later try may find more of it free."""
        return None

    def share(self, resources: Resources, jobs: int) -> Resources:
        """Resources of one of so many jobs: where they are fewer than this machine's cores, each gets more of these.

        That follows from the stage alone, not from what is left of it, so that a run which was stopped and one which
        was not compute with as many threads and so the same numbers.
        """
        if not resources.cpus:
            return resources
        return dataclasses.replace(resources, cpus=max(resources.cpus, self.cores // jobs))

    def _cores(self, attempt: Attempt) -> int:
        return min(attempt.resources.cpus or self.cores, self.cores)

    def adopt(self, attempts: Sequence[Attempt], group: Group) -> list[Attempt]:
        """None: local jobs of an earlier loop, if any still run, hold their stages' locks until they are done."""
        for attempt in attempts:
            attempt.job_id = attempt.ticket = ""
        return []

    def submit(
        self, ready: Sequence[Attempt], running: Sequence[Attempt], group: Group
    ) -> list[tuple[Attempt, Failure | None]]:
        """Start as many as fit, in their order; each with a failure where it could not be started."""
        begun: list[Attempt] = []
        for attempt in ready:
            if not self.fits(attempt, [*running, *begun]):
                break
            attempt.gpus = tuple(self.free_gpus([*running, *begun])[: self._gpu_count(attempt)])
            attempt.job = self._start(attempt, group)
            attempt.job_id = attempt.job.job_id
            begun.append(attempt)
        return [(attempt, None) for attempt in begun]

    def _start(self, attempt: Attempt, group: Group) -> submitit.Job[None]:
        stage = dataclasses.replace(attempt.stage, threads=self._cores(attempt))
        # A folder of its own: numbers of processes come again, and submitit would make one that is named "%j".
        executor = submitit.AutoExecutor(folder=self.folder / f"local_{uuid.uuid4().hex[:12]}", cluster="local")
        resources = attempt.resources
        parameters = {"timeout_min": max(1, round(resources.hours * 60)), "mem_gb": resources.memory_gb}
        executor.update_parameters(name=slug(stage.name), cpus_per_task=max(1, resources.cpus), **parameters)
        run = {"run": group.run, "group": group.name}
        call = JobCall(
            [stage],
            [group.job_name(stage)],
            [group.log_file(stage)],
            run,
            gpus=attempt.gpus,
            granted_gpus=len(attempt.gpus),
        )
        with surroundings.left_out(), interrupt.left_to_parent():
            return executor.submit(call)

    def over(self, running: Sequence[Attempt]) -> list[tuple[Attempt, Evidence]]:
        """Those that have ended, with what is known of them."""
        return [(attempt, self._evidence(attempt)) for attempt in running if _job_of(attempt).done()]

    def _evidence(self, attempt: Attempt) -> Evidence:
        job = _job_of(attempt)
        note = read_note(job.paths.folder, attempt.stage.name)
        return Evidence(str(job.state), note, tail(job.paths.stderr))

    def cancel(self, running: Sequence[Attempt]) -> None:
        """Ask them to save and end, for as long as they may take; what still runs then holds its stage's lock."""
        left = list(running)
        if left:
            log.info("stopping %d job%s", len(left), "s" if len(left) > 1 else "")
        deadline = time.monotonic() + _STOP_SECONDS
        while left and time.monotonic() < deadline:
            for attempt in left:
                # Again each time: submitit swallows the signal until the job listens for it.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(_job_of(attempt).job_id), signal.SIGTERM)
            time.sleep(self.poll_seconds)
            left = [attempt for attempt in left if not _job_of(attempt).done()]


def _job_of(attempt: Attempt) -> submitit.Job[None]:
    """The job of an attempt that was begun here."""
    if attempt.job is None:
        raise RuntimeError(f"{attempt.stage.name}: its job was not begun here")
    return attempt.job
