"""Run stages as submitit jobs, on SLURM or on this machine, until each has its artifact or has failed for good.

A job succeeded if its artifact is there, whatever the scheduler says. On this machine jobs wait for free cores, since
submitit's local executor starts everything at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import submitit
import torch

from pipeline.config import ClusterConfig, Resources, RetryConfig
from pipeline.stages import Stage, is_done
from runtime.cpus import cpu_count
from runtime.errors import JobError, UserError, one_line
from runtime.logs import configure_logging, duration
from runtime.paths import PROJECT_ROOT

log = logging.getLogger(__name__)

_LOCAL_POLL_SECONDS = 0.2
_STATUS_SECONDS = 20.0
_PROGRAM_ERROR_RETRIES = 1
_REFUSALS = 3


def resolve_cluster(kind: str) -> str:
    """`auto` becomes `slurm` where sbatch is found, else `local`. Raises `JobError` for slurm without sbatch."""
    found = shutil.which("sbatch") is not None
    if kind == "auto":
        return "slurm" if found else "local"
    if kind == "slurm" and not found:
        raise JobError("cluster slurm: sbatch is not on the PATH of this machine; use --cluster local")
    return kind


class JobCall:
    """What a job runs: the stage, with logging set up. Preempted or timed out, it is queued again and continues."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __call__(self) -> None:
        configure_logging()
        try:
            self.stage()
        except UserError as error:
            log.error("error: %s", one_line(error))
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(JobCall(self.stage))


@dataclasses.dataclass
class Attempt:
    """A stage on its way: how often it was tried, with which resources, and its job while one runs."""

    stage: Stage
    resources: Resources
    tries: int = 0
    program_errors: int = 0
    refusals: int = 0
    not_before: float = 0.0
    started: float = 0.0
    job: submitit.Job | None = None
    gpus: tuple[int, ...] = ()  # of this machine, while a local job runs on them
    seen: tuple[float, float] | None = None  # time and fraction of the first progress of this try

    def status(self, now: float) -> str:
        """One line: what the stage says of itself, the time it has taken and the time it still needs."""
        progress = self.stage.progress()
        times = f"{duration(now - self.started)} so far"
        if progress.fraction and self.seen is None:
            self.seen = (now, progress.fraction)
        elif self.seen and progress.fraction > self.seen[1]:
            rate = (progress.fraction - self.seen[1]) / (now - self.seen[0])
            times += f", ETA {duration((1 - progress.fraction) / rate)}"
        return f"{self.stage.name}: {progress.text} ({times})"


def visible_gpus() -> tuple[int, ...]:
    """Numbers of the GPUs that this process may use; `CUDA_VISIBLE_DEVICES` is respected."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    numbers = tuple(int(name) for name in named if name.strip().isdigit())
    return numbers[:count] if numbers else tuple(range(count))


class Launcher:
    """Submits stages; knows how many more may run now."""

    def __init__(self, cluster: ClusterConfig, folder: Path) -> None:
        self.kind = resolve_cluster(cluster.kind)
        self.cluster, self.folder = cluster, folder
        self.cores = cpu_count()
        self.gpus = visible_gpus() if self.kind == "local" else ()
        self.poll_seconds = cluster.poll_seconds if self.kind == "slurm" else _LOCAL_POLL_SECONDS

    def fits(self, attempt: Attempt, running: Sequence[Attempt]) -> bool:
        if self.kind == "slurm":
            return len(running) < self.cluster.max_parallel
        if self._gpu_count(attempt) > len(self._free_gpus(running)):
            return False
        return not running or sum(map(self._cores, running)) + self._cores(attempt) <= self.cores

    def _gpu_count(self, attempt: Attempt) -> int:
        return min(attempt.resources.gpus, len(self.gpus))

    def _free_gpus(self, running: Sequence[Attempt]) -> list[int]:
        taken = {gpu for attempt in running for gpu in attempt.gpus}
        return [gpu for gpu in self.gpus if gpu not in taken]

    def share(self, resources: Resources, jobs: int) -> Resources:
        """Resources of one of so many jobs: where they are fewer than this machine's cores, each gets more of these.

        That follows from the stage alone, not from what is left of it, so that a run which was stopped and one which
        was not compute with as many threads and so the same numbers.
        """
        if self.kind == "slurm" or not resources.cpus:
            return resources
        return dataclasses.replace(resources, cpus=max(resources.cpus, self.cores // jobs))

    def _cores(self, attempt: Attempt) -> int:
        return min(attempt.resources.cpus or self.cores, self.cores)

    def submit(self, attempt: Attempt, running: Sequence[Attempt]) -> submitit.Job:
        stage = attempt.stage
        resources = attempt.resources
        if self.kind == "local":
            stage = dataclasses.replace(stage, threads=self._cores(attempt))
        executor = submitit.AutoExecutor(folder=self.folder / "%j", cluster=self.kind)
        parameters: dict[str, Any] = {
            "name": stage.name.replace(" ", "_"),
            "timeout_min": max(1, round(resources.hours * 60)),
            "mem_gb": resources.memory_gb,
            "cpus_per_task": max(1, resources.cpus),
        }
        if self.kind == "slurm":
            parameters |= self._slurm_parameters(resources)
        elif self.gpus:
            attempt.gpus = tuple(self._free_gpus(running)[: self._gpu_count(attempt)])
            parameters |= {"gpus_per_node": len(attempt.gpus), "local_visible_gpus": attempt.gpus}
        executor.update_parameters(**parameters)
        with _importable_project():
            return executor.submit(JobCall(stage))

    def _slurm_parameters(self, resources: Resources) -> dict[str, Any]:
        cluster = self.cluster
        named = {
            "slurm_partition": cluster.partition,
            "slurm_qos": cluster.qos,
            "slurm_account": cluster.account,
            "slurm_constraint": cluster.constraint,
            "slurm_exclude": cluster.exclude,
            "slurm_setup": list(cluster.setup) or None,
            "gpus_per_node": resources.gpus or None,
        }
        return {key: value for key, value in named.items() if value is not None}


@contextlib.contextmanager
def _importable_project() -> Iterator[None]:
    """Jobs import this project wherever the loop was started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PROJECT_ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def run_jobs(
    stages: Sequence[Stage],
    resources: Resources,
    launcher: Launcher,
    retry: RetryConfig,
    on_done: Callable[[Stage], str],
) -> dict[str, str]:
    """Run all stages; calls `on_done(stage)`, which gives a phrase for the log, as each one finishes.

    Finished work is not run again. Returns the names of stages that failed for good with the reason. On Ctrl-C local
    jobs are stopped; jobs of a cluster go on, and a stage's lock keeps a second job from doing the same work beside it.
    """
    total = len(stages)
    waiting: deque[Attempt] = deque()
    done = 0
    for stage in stages:
        if is_done(stage):
            done += 1
            on_done(stage)
        else:
            waiting.append(Attempt(stage, launcher.share(resources, total)))
    if done:
        log.info("%d of %d jobs were finished before", done, total)
    first_done = done
    running: list[Attempt] = []
    failed: dict[str, str] = {}
    begun = last_status = time.monotonic()

    def settle(attempt: Attempt, reason: str, cause: str) -> None:
        verdict = _after_failure(attempt, retry, reason, cause)
        if verdict is None:
            waiting.append(attempt)
        else:
            failed[attempt.stage.name] = verdict
            log.error("%s failed for good: %s", attempt.stage.name, verdict)

    try:
        while waiting or running:
            now = time.monotonic()
            for attempt in [a for a in waiting if a.not_before <= now]:
                if not launcher.fits(attempt, running):
                    break
                waiting.remove(attempt)
                attempt.tries += 1
                try:
                    attempt.job = launcher.submit(attempt, running)
                except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                    settle(attempt, one_line(error), "refused")
                    continue
                attempt.started, attempt.seen = time.monotonic(), None
                running.append(attempt)
            time.sleep(launcher.poll_seconds)
            for attempt in [a for a in running if a.job.done()]:
                running.remove(attempt)
                stage = attempt.stage
                if is_done(stage):
                    done += 1
                    spent = time.monotonic() - attempt.started
                    rate = (time.monotonic() - begun) / max(done - first_done, 1)
                    left = duration(rate * (total - done - len(failed)))
                    log.info(
                        "[%d/%d] %s: %s (%s; %s left)", done, total, stage.name, on_done(stage), duration(spent), left
                    )
                    last_status = time.monotonic()
                    continue
                settle(attempt, *_reason(attempt.job))
            if running and time.monotonic() - last_status > _STATUS_SECONDS:
                last_status = time.monotonic()
                for attempt in running[:4]:
                    log.info("        %s", attempt.status(last_status))
                if len(running) > 4:
                    log.info("        and %d more running, %d waiting", len(running) - 4, len(waiting))
    except BaseException:
        if launcher.kind == "local":
            for attempt in running:
                attempt.job.cancel()
        raise
    return failed


def _after_failure(attempt: Attempt, retry: RetryConfig, reason: str, cause: str) -> str | None:
    """Decide by the cause what follows a failed try: None to try again, else the reason for giving up."""
    if cause == "user":
        return reason
    if attempt.tries > retry.max_retries:
        return f"{reason} (after {attempt.tries} tries)"
    resources = attempt.resources
    if cause == "program":
        # The same code on the same input fails again; one more try covers a passing fault of the machine.
        attempt.program_errors += 1
        if attempt.program_errors > _PROGRAM_ERROR_RETRIES:
            return reason
    elif cause == "refused":
        # A wrong partition or account stays wrong; a scheduler that is down for a while comes back.
        attempt.refusals += 1
        if attempt.refusals >= _REFUSALS:
            return reason
    elif cause == "memory":
        grown = min(round(resources.memory_gb * retry.retry_memory_multiplier), retry.max_memory_gb)
        if grown <= resources.memory_gb:
            return f"{reason} with {resources.memory_gb} GB (max_memory_gb is {retry.max_memory_gb})"
        attempt.resources = dataclasses.replace(resources, memory_gb=grown)
    elif cause == "time":
        grown_hours = min(resources.hours * retry.retry_time_multiplier, retry.max_time_hours)
        if grown_hours <= resources.hours:
            return f"{reason} after {resources.hours} hours (max_time_hours is {retry.max_time_hours})"
        attempt.resources = dataclasses.replace(resources, hours=grown_hours)
    attempt.not_before = time.monotonic() + (0.0 if cause == "program" else retry.retry_delay)
    log.warning("%s failed (%s); trying again (%d of %d)", attempt.stage.name, reason, attempt.tries, retry.max_retries)
    return None


def _reason(job: submitit.Job) -> tuple[str, str]:
    """A line on why a job failed, and the kind of cause: memory, time, user, program or system.

    (A submission that the scheduler refuses is the cause `refused`; there is no job then.)
    """
    state = str(job.state)
    if "OUT_OF_ME" in state:
        return state, "memory"
    if "TIMEOUT" in state:
        return state, "time"
    try:
        error = job.exception()
    except (submitit.core.utils.UncompletedJobError, OSError, EOFError):
        error = None
    if isinstance(error, submitit.core.utils.FailedJobError):
        last = _last_line_of_trace(str(error))
        if "timed-out too many times" in last:  # submitit's own end of a job that it had queued again
            return last, "time"
        for kind in UserError.__subclasses__():
            prefix = f"{kind.__module__}.{kind.__name__}: "
            if last.startswith(prefix):
                return last.removeprefix(prefix), "user"
        return last, "program"
    return f"no result (state {state})", "system"


def _last_line_of_trace(message: str) -> str:
    """The line that names the exception: submitit puts the trace between two dashed rules."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    rules = [i for i, line in enumerate(lines) if set(line) == {"-"}]
    return lines[rules[-1] - 1] if len(rules) > 1 else lines[-1]
