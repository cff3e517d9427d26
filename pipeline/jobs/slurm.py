"""Jobs on a SLURM cluster: arrays through submitit, one query of the scheduler per poll, jobs found again by their id.

An unanswered query means that nothing is known, not that a job failed. Who cancelled a job is asked of the accounting;
on a site without it (or where it is behind) the artifact and the job's own note decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from pipeline.jobs import snapshot
from pipeline.jobs.attempts import Attempt, Group, Ledger
from pipeline.jobs.call import JobCall, read_note
from pipeline.jobs.failures import Cause, Evidence, Failure
from pipeline.jobs.local import tail
from pipeline.jobs.memory_request import MemoryRequest, memory_request
from pipeline.jobs.resources import ClusterConfig, Resources
from pipeline.jobs.submit_limits import SubmitLimits, limit_in
from runtime import surroundings
from runtime.atomic import atomic_path
from runtime.errors import ConfigError, JobError, one_line
from runtime.paths import machine_settings
from runtime.provenance import provenance

log = logging.getLogger(__name__)

_ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD",
          "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT", "RESV_DEL_HOLD")  # fmt: skip
_QUERY_SECONDS = 60
_SUBMISSION_SECONDS = 3
_AWAY = re.compile(r"[Uu]nable to contact|[Ss]ocket timed out|[Cc]onnection (refused|timed out)|timed out after")
_UNCONFIGURED = re.compile(r"[Cc]ould not establish a configuration source|resolve_ctls_from_dns_srv")
_MISSES = 3  # answered polls without a job before it counts as vanished
_MAX_TIMEOUTS = 3  # requeues at the limit before more time is asked for
_REFUSED = (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, subprocess.SubprocessError)


@dataclass(frozen=True)
class JobInfo:
    """One line of squeue or sacct."""

    state: str
    reason: str = ""
    node: str = ""
    comment: str = ""


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


def room(running: Iterable[Attempt], cap: int) -> int:
    """How many more jobs may run at once; an array counts as what it may run at once, not as what it holds."""
    by_ticket: dict[str, set[str]] = {}
    for attempt in running:
        by_ticket.setdefault(attempt.ticket, set()).add(attempt.job_id)
    return cap - sum(min(len(jobs), cap) for jobs in by_ticket.values())


def batches(ready: Sequence[Attempt], tasks_per_job: int, limit: int) -> list[list[list[Attempt]]]:
    """Arrays of jobs of tasks: what asks for the same goes together."""

    def request(attempt: Attempt) -> tuple[Any, ...]:
        return (str(attempt.resources), attempt.tries.exclude)

    arrays = []
    for _, same in itertools.groupby(sorted(ready, key=request), key=request):
        attempts = list(same)
        jobs = [attempts[i : i + tasks_per_job] for i in range(0, len(attempts), tasks_per_job)]
        arrays += [jobs[i : i + limit] for i in range(0, len(jobs), limit)]
    return arrays


def refusal(message: str) -> Failure:
    """What sbatch's complaint means: a wrong partition stays wrong, a controller that is away comes back."""
    comes_back = _AWAY.search(message) or _UNCONFIGURED.search(message)  # a name service that is away for a while
    return Failure(Cause.SYSTEM if comes_back else Cause.REFUSED, message)


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


def _run(*command: str) -> subprocess.CompletedProcess:
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
        self.program = snapshot.take(code)
        self._unanswered = 0

    def share(self, resources: Resources, jobs: int) -> Resources:
        """With the memory that the site's own option, where it has one, gives a job in place of `memory_gb`."""
        total = self._memory(resources).total_gb
        return resources if total is None else dataclasses.replace(resources, memory_gb=total)

    def fixed_memory(self, resources: Resources) -> str | None:
        """Why a job cannot be given more memory; None where it can."""
        memory = self._memory(resources)
        if memory.total_gb is not None:
            return None
        value = "null" if memory.value is None else memory.value
        return f"cluster.sbatch has {memory.name.replace('_', '-')}: {value}, which cannot be made larger"

    def _memory(self, resources: Resources) -> MemoryRequest:
        return memory_request(sbatch_options(self.cluster), self.cluster.gres, resources)

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
        call.set_timeout(_minutes(tasks[0].resources), _MAX_TIMEOUTS)
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
        alone = mine is not None and not any(info.state.startswith(_ALIVE) for info in mine.values())
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
            executor = self.executor(tasks[0], name, ticket, parallel)
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

    def executor(self, attempt: Attempt, name: str, ticket: str, parallel: int) -> submitit.SlurmExecutor:
        """What asks sbatch for a job (or an array of equal ones), set up as the site and the attempt want it."""
        cluster, resources = self.cluster, attempt.resources
        exclude = ",".join(filter(None, [cluster.exclude, *attempt.tries.exclude]))
        parameters: dict[str, Any] = {
            "job_name": name,
            "time": _minutes(resources),
            "mem": None,  # sbatch takes one option of memory alone
            "cpus_per_task": max(1, resources.cpus),
            "gpus_per_node": (resources.gpus or None) if cluster.gres is None else None,
            "gres": cluster.gres if resources.gpus else None,
            "partition": cluster.partition,
            "qos": cluster.qos,
            "account": cluster.account,
            "constraint": cluster.constraint,
            "exclude": exclude or None,
            "wckey": None,  # submitit's own, which sites that know their keys refuse
            "comment": ticket,
            "array_parallelism": parallel,
            "signal_delay_s": cluster.signal_seconds,
            "stderr_to_stdout": True,
            "setup": [*self._exports(), *cluster.setup],
        }
        # The folder that a module is looked for in first is the current one: it has to be the copy.
        options: dict[str, Any] = {"requeue": True, "chdir": str(self.program), **sbatch_options(cluster)}
        memory = self._memory(resources)
        if memory.own:
            parameters["mem"] = memory.value
        else:
            options[memory.name] = memory.of(resources.memory_gb)
        parameters |= {option: None for option, value in options.items() if value is None and option in _OF_SUBMITIT}
        parameters["additional_parameters"] = {option: v for option, v in options.items() if v is not None}
        executor = submitit.SlurmExecutor(self.folder / "%j", max_num_timeout=_MAX_TIMEOUTS)
        executor.update_parameters(**parameters)
        return executor

    def _exports(self) -> list[str]:
        """Shell lines that give a job the program's copy and this machine's settings, whatever is in their values."""
        # What this process finds modules in is found by jobs too, which run in another folder.
        path = [self.program, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        settings = {
            "PYTHONPATH": os.pathsep.join(str(Path(part).absolute()) for part in path),
            "ICDG_CACHE_PATH": str(machine_settings().cache_path),
            "ICDG_COMMIT": provenance()["commit"],
        }
        return [
            # Where sbatch is told to export nothing, srun would do the same and drop what follows.
            "unset SLURM_EXPORT_ENV",
            # srun may take one core unless it is told, and a site that binds no process shows it all of the node's.
            'cores="${SLURM_CPUS_PER_TASK:-}"',
            '[ -z "$cores" ] || export SRUN_CPUS_PER_TASK="$cores" ICDG_CPUS="$cores"',
            *(f"export {key}={shlex.quote(value)}" for key, value in settings.items()),
        ]

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
                if told.state.startswith(_ALIVE) and attempt.missed < 4 * _MISSES:
                    continue  # the accounting is behind, or the job is on its way back into the queue
                if not told.state.startswith(_ALIVE):
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
        return None if info.state.startswith(_ALIVE) else info.state

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


_OF_SUBMITIT = frozenset(submitit.SlurmExecutor._valid_parameters())


def sbatch_options(cluster: ClusterConfig) -> dict[str, Any]:
    """The site's own options as submitit spells them; None for those that are not to be given to sbatch at all."""
    return {name.replace("-", "_"): None if value is False else value for name, value in cluster.sbatch.items()}


def asks_for_gpus(cluster: ClusterConfig) -> bool:
    """Whether jobs that are to have GPUs ask for them: a site may have taken the option out, and given no other."""
    options = sbatch_options(cluster)
    ours = "gpus_per_node" if cluster.gres is None else "gres"
    others = ("gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket", "gres", "tres_per_job", "tres_per_task")
    return options.get(ours, True) is not None or any(options.get(name) for name in others)


def _minutes(resources: Resources) -> int:
    return max(1, round(resources.hours * 60))
