"""Run stages as jobs, on SLURM or on this machine, until each has its artifact or has failed for good.

A job succeeded if its artifact is there, whatever the scheduler says. Where jobs run is a site (`slurm.py`,
`local.py`); what follows a failure is decided in `failures.py`.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.jobs.attempts import Attempt, Group, Ledger
from pipeline.jobs.failures import Decision, Failure, classify, decide
from pipeline.jobs.local import LocalSite
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from pipeline.jobs.scheduler import expect_cluster
from pipeline.jobs.slurm import SlurmSite
from pipeline.jobs.stage import Stage
from runtime.errors import JobError
from runtime.logs import Progress, duration, progress

S = TypeVar("S", bound=Stage)

log = logging.getLogger(__name__)

Site = LocalSite | SlurmSite

_STATUS_SECONDS = 20.0


def resolve_cluster(kind: str) -> str:
    """`auto` becomes `slurm` where sbatch is found, else `local`. Raises `JobError` for slurm that cannot be used."""
    if kind == "auto":
        kind = "local" if shutil.which("sbatch") is None else "slurm"
    if kind == "slurm":
        expect_cluster()
    return kind


def make_site(cluster: ClusterConfig, folder: Path, ledger: Ledger, code: Path) -> Site:
    """Where jobs run; `folder` gets a folder per job, `code` the copies of the program that a cluster's jobs run."""
    if resolve_cluster(cluster.kind) == "slurm":
        return SlurmSite(cluster, folder, ledger, code)
    return LocalSite(folder)


def run_jobs(
    stages: Sequence[S],
    resources: Resources,
    site: Site,
    ledger: Ledger,
    group: Group,
    retry: RetryConfig,
    on_done: Callable[[S], str],
) -> dict[str, str]:
    """Run all stages; calls `on_done(stage)`, which gives a phrase for the log, as each one finishes.

    Finished work is not run again, and jobs of an earlier loop that still run are found again. Returns the names of
    stages that failed for good with the reason. Raises `JobError` where the user cancelled a job. On Ctrl-C local jobs
    are stopped; jobs of a cluster go on.
    """
    return _Round(stages, resources, site, ledger, group, retry, on_done).run()


def run_batch(
    stages: Sequence[S],
    resources: Resources,
    cluster: ClusterConfig,
    retry: RetryConfig,
    on_done: Callable[[S], str],
    *,
    name: str,
    folder: Path,
    logs: Path,
) -> dict[str, str]:
    """`run_jobs` for jobs that belong to no loop: a sweep, a baseline over seeds. Its ledger is in `folder`."""
    ledger = Ledger(folder / "jobs.json")
    site = make_site(cluster, logs, ledger, folder / "code")
    group = Group(name, name, 0, lambda stage: logs)
    return run_jobs(stages, resources, site, ledger, group, retry, on_done)


class _Round:
    """One stage of an iteration on its way: what waits, what runs, what failed."""

    def __init__(
        self,
        stages: Sequence[Stage],
        resources: Resources,
        site: Site,
        ledger: Ledger,
        group: Group,
        retry: RetryConfig,
        on_done: Callable[[Any], str],
    ) -> None:
        self.site, self.ledger, self.group, self.retry, self.on_done = site, ledger, group, retry, on_done
        self.total, self.done = len(stages), 0
        self.running: list[Attempt] = []
        self.failed: dict[str, str] = {}
        self.waiting: list[Attempt] = []
        for stage in stages:
            if stage.is_done():
                self.done += 1
                on_done(stage)
                continue
            self.waiting.append(Attempt(stage, site.share(resources, self.total)))
            ledger.restore(self.waiting[-1])
        self.done_before = self.done
        self.begun = self.last_status = time.monotonic()

    def run(self) -> dict[str, str]:
        if self.done:
            log.info("%d of %d jobs were finished before", self.done, self.total)
        self.running = self.site.adopt(self.waiting, self.group)
        self.waiting = [attempt for attempt in self.waiting if attempt not in self.running]
        try:
            with progress(self.total, self.group.name, done=self.done, every_seconds=math.inf) as bar:
                self._poll(bar)
        except BaseException:
            self.site.cancel(self.running)
            raise
        return self.failed

    def _poll(self, bar: Progress) -> None:
        """Until every stage is done or has failed for good; the bar is seen on a terminal alone."""
        while self.waiting or self.running:
            self._submit()
            bar.update(self.done - bar.done, running=len(self.running), waiting=len(self.waiting))
            time.sleep(self.site.poll_seconds)
            for attempt, evidence in self.site.over(self.running):
                self.running.remove(attempt)
                if attempt.stage.is_done():
                    self._finish(attempt)
                else:
                    self._settle(attempt, classify(evidence))
            self._tell_status()
        bar.update(self.done - bar.done, running=0, waiting=0)

    def _submit(self) -> None:
        now = time.monotonic()
        ready = [attempt for attempt in self.waiting if attempt.not_before <= now]
        submitted = self.site.submit(ready, self.running, self.group) if ready else []
        for attempt, refusal in submitted:
            self.waiting.remove(attempt)
            attempt.tries = attempt.tries.another()
            attempt.started, attempt.seen = time.monotonic(), None
            if refusal is None:
                self.running.append(attempt)
            else:
                self._settle(attempt, refusal)
        if submitted:
            self.ledger.write(self.running)

    def _finish(self, attempt: Attempt) -> None:
        self.done += 1
        self.ledger.forget(attempt)
        now = time.monotonic()
        rate = (now - self.begun) / max(self.done - self.done_before, 1)
        left = duration(rate * (self.total - self.done - len(self.failed)))
        name, spent = attempt.stage.name, duration(now - attempt.started)
        log.info("[%d/%d] %s: %s (%s; %s left)", self.done, self.total, name, self.on_done(attempt.stage), spent, left)
        self.last_status = now

    def _settle(self, attempt: Attempt, failure: Failure) -> None:
        fixed_memory = self.site.fixed_memory(attempt.resources)
        decision: Decision = decide(failure, attempt.resources, attempt.tries, self.retry, fixed_memory)
        name = attempt.stage.name + (f" (job {attempt.job_id})" if attempt.job_id else "")
        for line in failure.trace:
            log.warning("        %s", line)
        attempt.job_id = attempt.ticket = ""
        attempt.gpus = ()
        attempt.resources, attempt.tries = decision.resources, decision.tries
        attempt.not_before = time.monotonic() + decision.delay
        if decision.give_up is None:
            log.warning("%s failed: %s", name, decision.line)
            self.waiting.append(attempt)
            self.ledger.write([attempt])
            return
        self.ledger.forget(attempt)
        if decision.stop:
            raise JobError(f"{name} was {failure.reason}: the loop stops; the same command goes on and runs it again")
        self.failed[attempt.stage.name] = decision.give_up
        log.error("%s failed for good: %s", name, decision.give_up)

    def _tell_status(self) -> None:
        now = time.monotonic()
        if not self.running or now - self.last_status <= _STATUS_SECONDS:
            return
        self.last_status = now
        for attempt in self.running[:4]:
            log.info("        %s", attempt.status(now))
        if len(self.running) > 4:
            log.info("        and %d more running, %d waiting", len(self.running) - 4, len(self.waiting))
