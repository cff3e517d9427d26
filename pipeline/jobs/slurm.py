"""Jobs on a SLURM cluster: arrays through submitit, one query of the scheduler per poll, jobs found again by their id.

An unanswered query means that nothing is known, not that a job failed. Who cancelled a job is asked of the accounting;
on a site without it (or where it is behind) the artifact and the job's own note decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import submitit

from pipeline.jobs import snapshot
from pipeline.jobs.arrays import batches, room
from pipeline.jobs.attempts import Attempt, Group, Ledger
from pipeline.jobs.call import JobCall, read_note
from pipeline.jobs.failures import Evidence, Failure
from pipeline.jobs.local import tail
from pipeline.jobs.resources import ClusterConfig, Resources
from pipeline.jobs.sbatch import MAX_TIMEOUTS, Sbatch, asks_for_gpus, minutes, refusal
from pipeline.jobs.scheduler import JobInfo, accounting, cancelled_by_user, queue
from pipeline.jobs.submit_limits import SubmitLimits, limit_in
from runtime import surroundings
from runtime.atomic import atomic_path
from runtime.errors import ConfigError, one_line

log = logging.getLogger(__name__)

_SUBMISSION_SECONDS = 3
_MISSES = 3  # answered polls without a job before it counts as vanished
_REFUSED = (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, subprocess.SubprocessError)


class SlurmSite:
    """A SLURM cluster as a place where jobs run."""

    kind = "slurm"

    def __init__(self, cluster: ClusterConfig, folder: Path, ledger: Ledger, code: Path) -> None:
        """`folder` gets one folder per job, `code` the copies of the program that jobs run."""
        if odd := sorted(set("%\\\n\r").intersection(str(folder))):
            raise ConfigError(
                f"logs_path {str(folder)!r}: SLURM takes {odd[0]!r} in a log's name for a pattern; expected none"
            )
        self.cluster, self.folder, self.ledger = cluster, folder, ledger
        self.poll_seconds = cluster.poll_seconds
        if set_elsewhere := sorted(name for name in os.environ if name.startswith("SBATCH_")):
            log.info("%s: not used; options of sbatch are read from the configuration", ", ".join(set_elsewhere))
        self.limits = SubmitLimits(cluster.max_array, cluster.poll_seconds)
        self.sbatch = Sbatch(cluster, folder, snapshot.take(code))
        self._unanswered = 0

    def share(self, resources: Resources, jobs: int) -> Resources:
        """With the memory that the site's own option, where it has one, gives a job in place of `memory_gb`."""
        total = self.sbatch.memory(resources).total_gb
        return resources if total is None else dataclasses.replace(resources, memory_gb=total)

    def fixed_memory(self, resources: Resources) -> str | None:
        """Why a job cannot be given more memory; None where it can."""
        memory = self.sbatch.memory(resources)
        if memory.total_gb is not None:
            return None
        value = "null" if memory.value is None else memory.value
        return f"cluster.sbatch has {memory.name.replace('_', '-')}: {value}, which cannot be made larger"

    # Finding jobs again

    def adopt(self, attempts: Sequence[Attempt], group: Group) -> list[Attempt]:
        """Those of an earlier loop's jobs that the scheduler may still have; waits until it answers."""
        recorded = [attempt for attempt in attempts if attempt.ticket]
        if not recorded:
            return []
        if not all(attempt.job_id for attempt in recorded):
            time.sleep(_SUBMISSION_SECONDS)  # an sbatch that outlived its loop
        while (jobs := queue()) is None:
            log.warning("the scheduler does not answer; waiting for it before anything is submitted")
            time.sleep(self.poll_seconds)
        by_comment: dict[str, list[str]] = {}
        for job_id, info in jobs.items():
            by_comment.setdefault(info.comment, []).append(job_id)
        for attempt in recorded:
            if not attempt.job_id:
                same = by_comment.get(attempt.ticket, [])
                attempt.job_id = next((i for i in same if "_" not in i or i.endswith(f"_{attempt.place}")), "")
                if not attempt.job_id:
                    attempt.ticket = ""
        self._drop_cancelled([attempt for attempt in recorded if attempt.job_id], jobs)
        found = [attempt for attempt in recorded if attempt.job_id]
        by_job: dict[str, list[Attempt]] = {}
        for attempt in found:
            by_job.setdefault(attempt.job_id, []).append(attempt)
            attempt.started = time.monotonic()
        for job_id, tasks in by_job.items():
            self._complete_submission(job_id, tasks, group)
        if by_job:
            log.info("found %d jobs of this run again: %s", len(by_job), ", ".join(sorted(by_job)[:8]))
            self.ledger.write(found)
        return found

    def _drop_cancelled(self, attempts: Sequence[Attempt], jobs: dict[str, JobInfo]) -> None:
        """Jobs that were cancelled while no loop ran: whoever starts the loop again wants them again."""
        gone = sorted({attempt.job_id for attempt in attempts} - jobs.keys())
        jobs = {**accounting(gone), **jobs}
        for attempt in attempts:
            if attempt.job_id in jobs and jobs[attempt.job_id].state.startswith("CANCELLED"):
                log.info("%s: job %s was cancelled while no loop ran; again", attempt.stage.name, attempt.job_id)
                attempt.job_id = attempt.ticket = ""

    def _complete_submission(self, job_id: str, tasks: Sequence[Attempt], group: Group) -> None:
        """Give a job what it runs, where its loop was killed between sbatch and this."""
        pickle = submitit.core.utils.JobPaths(self.folder / "%j", job_id=job_id).submitted_pickle
        if pickle.exists():
            return
        call = submitit.core.utils.DelayedSubmission(self._call(tasks, group))
        call.set_timeout(minutes(tasks[0].resources), MAX_TIMEOUTS)
        with atomic_path(pickle) as temporary:
            call.dump(temporary)

    # Submitting

    def submit(
        self, ready: Sequence[Attempt], running: Sequence[Attempt], group: Group
    ) -> list[tuple[Attempt, Failure | None]]:
        """Submit all that the cap allows, as arrays; each with a failure where the scheduler refused it."""
        if self._unanswered:
            self._note_answer(queue() is not None)
        if self._unanswered:
            return []
        results: list[tuple[Attempt, Failure | None]] = []
        begun, left = list(running), list(ready)
        while left and not self.limits.waiting():
            free = room(begun, self.cluster.max_parallel)
            if free < 1:
                break
            jobs = batches(left, self.cluster.tasks_per_job, self.limits.array_size)[0]
            tasks = [attempt for job in jobs for attempt in job]
            complaint = self._submit_array(jobs, free, group)
            if complaint is None:
                begun += tasks
                self.limits.accepted()
            elif self._of_limits(complaint, len(jobs)):
                continue
            failure = refusal(complaint) if complaint else None
            results += [(attempt, failure) for attempt in tasks]
            left = [attempt for attempt in left if attempt not in tasks]
        return results

    def _of_limits(self, complaint: str, jobs: int) -> bool:
        """Whether sbatch took no array of so many jobs because of a limit that a smaller one or waiting meets."""
        limit = limit_in(complaint)
        if limit is None:
            return False
        mine = queue() if jobs == 1 else None
        alone = mine is not None and not any(info.alive for info in mine.values())
        return self.limits.refused(limit, jobs, complaint, alone=alone)

    def _submit_array(self, jobs: Sequence[Sequence[Attempt]], parallel: int, group: Group) -> str | None:
        """Gives sbatch's complaint where it did not take the jobs."""
        ticket = f"icdg:{uuid.uuid4().hex[:12]}"
        tasks = [attempt for job in jobs for attempt in job]
        for place, job in enumerate(jobs):
            for attempt in job:
                attempt.ticket, attempt.place, attempt.job_id = ticket, place, ""
                attempt.submitted, attempt.missed, attempt.held = time.time(), 0, False
        self.ledger.write(tasks)
        calls = [self._call(job, group) for job in jobs]
        name = calls[0].names[0] if len(jobs) == 1 else f"{group.name}_{len(jobs)}_jobs"
        try:
            executor = self.sbatch.executor(tasks[0], name, ticket, parallel)
            # What sbatch says is in the error that follows; submitit prints it as well.
            said = contextlib.redirect_stderr(io.StringIO())
            with said, surroundings.left_out("ICDG_CPUS"), executor.batch():
                submitted = [executor.submit(call) for call in calls]
        except _REFUSED as error:
            for attempt in tasks:
                attempt.ticket = ""
            self.ledger.write(tasks)
            return one_line(error)
        for job, handle in zip(jobs, submitted, strict=True):
            for attempt in job:
                attempt.job_id = handle.job_id
        self.ledger.write(tasks)
        first, last = submitted[0].job_id, submitted[-1].job_id
        log.info("submitted %s as %s", name, first if len(jobs) == 1 else f"{first} to {last}, {parallel} at once")
        return None

    def _call(self, tasks: Sequence[Attempt], group: Group) -> JobCall:
        names = [group.job_name(attempt.stage) for attempt in tasks]
        logs = [group.log_file(attempt.stage) for attempt in tasks]
        stages, run = [attempt.stage for attempt in tasks], {"run": group.run, "group": group.name}
        granted = tasks[0].resources.gpus if asks_for_gpus(self.cluster) else 0
        return JobCall(stages, names, logs, run, self.cluster.signal_seconds, granted_gpus=granted)

    # Watching

    def over(self, running: Sequence[Attempt]) -> list[tuple[Attempt, Evidence]]:
        """Those that have ended, with what is known of them."""
        jobs = queue()
        self._note_answer(jobs is not None)
        ended: dict[Attempt, str] = {}
        for attempt in running:
            state = self._ended(attempt, jobs)
            if state is not None:
                ended[attempt] = state
        known = accounting(
            sorted({a.job_id for a, state in ended.items() if state.startswith(("CANCELLED", "VANISHED"))})
        )
        if ended:
            self.limits.jobs_ended()
        results = []
        for attempt, state in ended.items():
            told = known.get(attempt.job_id)
            if state == "VANISHED" and told is not None:
                if told.alive and attempt.missed < 4 * _MISSES:
                    continue  # the accounting is behind, or the job is on its way back into the queue
                if not told.alive:
                    state = told.state
            by_user = cancelled_by_user(told.state, os.getuid()) if told else None
            node = (jobs or {}).get(attempt.job_id, told or JobInfo(state)).node
            note = read_note(self.folder / attempt.job_id, attempt.stage.name)
            node = node or (note or {}).get("host", "")
            log_tail = tail(self.folder / attempt.job_id / f"{attempt.job_id}_0_log.out")
            results.append((attempt, Evidence(state, note, log_tail, node, by_user)))
        return results

    def _ended(self, attempt: Attempt, jobs: dict[str, JobInfo] | None) -> str | None:
        """The state in which a job ended, None while it may still run."""
        note = read_note(self.folder / attempt.job_id, attempt.stage.name) or {}
        if note.get("outcome") in ("done", "error"):
            return "COMPLETED" if note["outcome"] == "done" else "FAILED"
        if jobs is None:
            return "COMPLETED" if attempt.stage.is_done() else None
        info = jobs.get(attempt.job_id)
        if info is None:
            attempt.missed += 1
            return "VANISHED" if attempt.missed >= _MISSES or attempt.stage.is_done() else None
        attempt.missed = 0
        held = info.state == "PENDING" and ("held" in info.reason.lower())
        if held and not attempt.held:
            log.warning("%s: job %s is held (%s); `scontrol release %s` lets it go on", attempt.stage.name,
                        attempt.job_id, info.reason, attempt.job_id)  # fmt: skip
        attempt.held = held
        return None if info.alive else info.state

    def _note_answer(self, answered: bool) -> None:
        if answered and self._unanswered:
            log.info("the scheduler answers again")
        if not answered and not self._unanswered:
            log.warning("the scheduler does not answer; jobs are taken to go on")
        self._unanswered = 0 if answered else self._unanswered + 1

    def cancel(self, running: Sequence[Attempt]) -> None:
        """Jobs of a cluster go on without the loop; the same command finds them again."""
        if running:
            jobs = len({attempt.job_id for attempt in running})
            what = "1 job on the cluster goes on" if jobs == 1 else f"{jobs} jobs on the cluster go on"
            log.info("%s; the same command finds %s again", what, "it" if jobs == 1 else "them")
