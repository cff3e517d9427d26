"""The faults that a loop has to survive: functions that start a loop, disturb it and bring it to its end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.atomic import write_text
from tests.slurm.cluster import wait_for
from tests.slurm.runs import RUN, SECONDS, TRAIN, Run, differing, half

RANDOM_KILLS = 20


@dataclass(frozen=True)
class Fault:
    """`disturb` starts the loop, disturbs it, sees it to its end and says when the fault happened (monotonic)."""

    name: str
    disturb: Callable[[Run], float]
    survives: str
    changes: dict[str, Any] = field(default_factory=dict)
    accounting: bool = True
    needs: str | None = None  # a program
    from_nothing: bool = False  # else the expert data is there already


FAULTS: list[Fault] = []


def fault(
    name: str,
    survives: str,
    accounting: bool = True,
    needs: str | None = None,
    from_nothing: bool = False,
    **changes: Any,
) -> Callable[[Callable[[Run], float]], Callable[[Run], float]]:
    def register(disturb: Callable[[Run], float]) -> Callable[[Run], float]:
        FAULTS.append(Fault(name, disturb, survives, changes, accounting, needs, from_nothing))
        return disturb

    return register


def _check(condition: bool, what: str, run: Run) -> None:
    assert condition, f"{what}\n{run.output[-3000:]}"


def _killing(run: Run, kill: Callable[[Run, random.Random], str | None]) -> float:
    """Start the loop and call `kill` until it has told `RANDOM_KILLS` times what it killed; None: there was nothing.

    A loop that comes to its end before that is followed by another one from nothing, which must have its results.
    """
    seed = os.urandom(4).hex()
    dice, killed, rounds = random.Random(seed), Counter(), [run]
    while killed.total() < RANDOM_KILLS:
        current = rounds[-1]
        if current.process is None or current.process.poll() is not None:
            if current.process is not None and current.process.returncode == 0:
                current = run.sibling(f"again{len(rounds)}")
                rounds.append(current)
            current.start()
        what = kill(current, dice)
        killed += Counter([what] if what else [])
        _check(current.process.poll() in (None, 0, -signal.SIGKILL), "the loop failed", current)
    happened = time.monotonic()
    for each in rounds:
        if each.process.poll() is None:
            each.finish()
        elif each.process.returncode:
            each.again()
        other = differing(each.digest(), run.digest())
        _check(not other, f"results differ between the loops that were killed: {other}", each)
    kinds = ", ".join(f"{count} {what}" for what, count in sorted(killed.items()))
    run.note = f"{killed.total()} kills in {len(rounds)} loop{'s' * (len(rounds) > 1)}: {kinds}"
    return happened


_MOMENTS = ("train and test policies", "generate", "train the generator")


@fault(
    "kill -9 of the loop, at random moments",
    f"killed {RANDOM_KILLS} times or more; no job is submitted twice",
    from_nothing=True,
)
def kill_loop(run: Run) -> float:
    def kill(current: Run, dice: random.Random) -> str | None:
        # A quarter of the kills come while the program starts, the others when it is at work.
        if dice.random() < 0.75:
            current.says_before_its_end("iteration 0: ")
        with contextlib.suppress(subprocess.TimeoutExpired):
            current.process.wait(dice.uniform(0.0, 6.0))
        if current.process.poll() is not None:
            return None
        current.kill()
        at = next((f'at "{moment}"' for moment in _MOMENTS if f"iteration 0: {moment}" in current.output), None)
        return at or "while starting"

    happened = _killing(run, kill)
    for each in (run, *run.siblings):
        twice = {stage: count for stage, count in each.jobs_per_stage().items() if count > 1}
        _check(not twice, f"stages with more than one job: {twice}", each)
    return happened


@contextlib.contextmanager
def _stopped(run: Run, job: str) -> Iterator[None]:
    """Hold a job's process meanwhile: a loop may take longer to start than the job to end."""
    pids = run.job_pids(job)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@fault("kill -9 of the loop between sbatch and its answer", "the job is found by the ticket in its comment")
def kill_in_submission(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    with _stopped(run, job):
        run.kill()
        happened = time.monotonic()
        ledger = run.ledger
        ledger[TRAIN]["job_id"] = ""  # as it was before sbatch answered
        (run.results / "loops" / RUN / "jobs.json").write_text(json.dumps(ledger))
        run.start()
        run.wait_until_said(f"found 1 jobs of this run again: {job}")
    run.finish()
    return happened


@fault("kill -9 of a job", "again from its checkpoint")
def kill_job(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    (pid,) = run.job_pids(job)
    os.kill(pid, signal.SIGKILL)
    happened = time.monotonic()
    run.wait_until_said(r"failed: ended without a result .*trying again")
    run.finish()
    return happened


@fault(
    "kill -9 of jobs, at random moments",
    f"{RANDOM_KILLS} kills or more, each followed by another try",
    # The delay doubles with every kill of the same job.
    retry={"retry_delay": 0.001, "max_retries": 100},
)
def kill_jobs(run: Run) -> float:
    counts: Counter[str] = Counter()

    def kill(current: Run, dice: random.Random) -> str | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            current.process.wait(dice.uniform(0.5, 15.0))
        running = [(stage, pid) for stage in current.ledger for pid in current.job_pids(current.job_of(stage))]
        if not running:
            return None
        stage, pid = dice.choice(running)
        kind = stage.split()[0]
        if counts[kind] >= 0.4 * RANDOM_KILLS:  # the others' turn
            return None
        counts[kind] += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return f"of a {kind} job"

    return _killing(run, kill)


@fault("scancel by the user", "the loop stops and says how to go on; the same command finishes")
def scancel(run: Run) -> float:
    run.start()
    run.cluster.run("scancel", run.wait_until_training(), check=True)
    happened = time.monotonic()
    _check(run.end() == 2, "expected exit 2", run)
    _check("cancelled by the user: the loop stops; the same command goes on" in run.output, "no way on is told", run)
    run.again()
    return happened


@fault("scancel by an operator", "again after the delay")
def scancel_by_operator(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    run.cluster.run_as_operator("scancel", job)
    happened = time.monotonic()
    run.wait_until_said("failed: cancelled by the system; trying again")
    run.finish()
    return happened


@fault("slurmdbd down: scancel", "who cancelled is not known, so it is taken to be the user")
def accounting_down(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    run.cluster.stop_daemon("slurmdbd")
    try:
        run.cluster.run("scancel", job, check=True)
        happened = time.monotonic()
        _check(run.end() == 2, "expected exit 2", run)
        run.again()
    finally:
        run.cluster.start_database_daemon()
    return happened


@fault("scontrol requeue", "saved on SIGTERM, continued by the same job")
def requeue(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    run.cluster.run("scontrol", "requeue", job, check=True)
    happened = time.monotonic()
    run.cluster.start_requeued(job)
    run.finish()
    _check("failed" not in run.output, "a requeue is no failure", run)
    return happened


@fault("preemption by a partition of higher priority", "saved on SIGTERM, continued when the nodes are free")
def preempt(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    urgent = ["-p", "urgent", "-N2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2"]
    run.cluster.run("sbatch", *urgent, check=True)
    happened = time.monotonic()
    run.cluster.start_requeued(job)
    run.finish()
    return happened


_HOG = (
    """[ "${SLURM_MEM_PER_NODE:-0}" -gt 1024 ] || python3 -c 'x = bytearray(1600 << 20); import time; time.sleep(30)'"""
)


@fault(
    "memory limit",
    "again with more memory, within the cap",
    cluster={"setup": [_HOG]},
    resources={"diffusion": {"memory_gb": 1}},
)
def memory(run: Run) -> float:
    run.start()
    run.wait_until_said("out of memory; trying again with 2 GB instead of 1")
    happened = time.monotonic()
    run.finish()
    return happened


# The scheduler looks at limits every 30 s, so a job of a minute is warned when half of it is left. The first run begins
# late, so that this comes in the middle of the training on a fast machine, too.
_LATE = '[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || sleep 5'


@fault(
    "time limit in the middle of training",
    "saved before the limit, requeued, and given more time in the end",
    cluster={"signal_seconds": 20, "setup": [_LATE]},
    resources={"diffusion": {"hours": 1 / 60}},
    training={"steps": 4000},
)
def time_limit(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    log = run.logs / "slurm" / job / f"{job}_0_log.out"
    wait_for(lambda: "received SIGUSR2: saving" in log.read_text(), "the signal before the limit", 100)
    happened = time.monotonic()
    while run.process.poll() is None and time.monotonic() < happened + SECONDS:
        run.cluster.start_all_requeued()
        time.sleep(1)
    run.finish()
    return happened


@fault("node down in the middle of a job, and back", "requeued to the other node, from its checkpoint")
def node_down(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    node = run.cluster.run("squeue", "-h", "-j", job, "-o", "%N").stdout.strip()
    run.cluster.node_down(node)
    happened = time.monotonic()
    try:
        run.cluster.start_requeued(job, lost=node)
        run.finish()
    finally:
        run.cluster.node_up(node)
        wait_for(lambda: node in run.cluster.idle_nodes(), f"{node} to be back")
    return happened


@fault("slurmctld down for 20 s", "unanswered means unknown: nothing is submitted twice")
def controller_down(run: Run) -> float:
    run.start()
    run.wait_until_training()
    run.cluster.stop_daemon("slurmctld", signal.SIGKILL)
    happened = time.monotonic()
    try:
        run.wait_until_said("the scheduler does not answer", 90)
        time.sleep(5)
    finally:
        run.cluster.start_controller()
    run.finish()
    _check(max(run.jobs_per_stage().values()) == 1, f"jobs per stage: {run.jobs_per_stage()}", run)
    return happened


@contextlib.contextmanager
def _small_disk(run: Run) -> Iterator[Path]:
    """Results on a file system of their own; gives the path of a file that can fill it."""
    run.results.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(run.results)], check=True)
    kept = run.folder / "kept"
    try:
        yield run.results / "filler"
        subprocess.run(["cp", "-a", f"{run.results}/.", str(kept)], check=True)
    finally:
        run.close()
        subprocess.run(["umount", "-l", str(run.results)], check=True)
        if kept.exists():
            subprocess.run(["cp", "-a", f"{kept}/.", str(run.results)], check=True)


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"\0" * 4096)


def _disk_full(run: Run, moment: Callable[[Run], Any]) -> float:
    with _small_disk(run) as filler:
        run.start()
        moment(run)
        _fill(filler)
        happened = time.monotonic()
        _check(run.end() == 2, "expected exit 2", run)
        last = run.output.strip().splitlines()[-1]
        _check(last.startswith("error:") and "space" in last, "the last line names the full disk", run)
        _check("Traceback" not in last, "no traceback", run)
        run.cluster.run("scancel", "--user=root")
        filler.unlink()
        run.again()
    return happened


@fault("disk full while a checkpoint is written", "stops with one line; the same command finishes once there is space")
def disk_full_checkpoint(run: Run) -> float:
    return _disk_full(run, lambda run: run.wait_until_training())


@fault("disk full while samples are written", "the same")
def disk_full_samples(run: Run) -> float:
    return _disk_full(run, lambda run: run.wait_until_said(r"submitted generation_i0"))


@fault("disk full while the state is written", "the same")
def disk_full_state(run: Run) -> float:
    return _disk_full(run, lambda run: run.wait_until_said(r"\[1/3\] policy"))


def _truncated(run: Run, moment: Callable[[Run], Any], pattern: str) -> float:
    run.start()
    moment(run)
    run.kill()
    run.cluster.run("scancel", "--user=root")
    wait_for(lambda: not run.cluster.run("squeue", "-h").stdout.strip(), "jobs to end")
    files = list(run.results.glob(pattern))
    assert files, pattern
    for file in files:
        half(file)
    happened = time.monotonic()
    run.again()
    return happened


@fault("truncated checkpoint", "training starts anew")
def truncated_checkpoint(run: Run) -> float:
    return _truncated(run, lambda run: run.wait_until_training(), "augmented_0/diffusion/*/resume.pt")


@fault("truncated samples", "generated again")
def truncated_samples(run: Run) -> float:
    return _truncated(
        run, lambda run: run.wait_until_said(r"\[3/3\] generate"), "augmented_0/diffusion/*/*/samples_0.npz"
    )


@fault("truncated state file", "found out again from the finished files")
def truncated_state(run: Run) -> float:
    return _truncated(run, lambda run: run.wait_until_said(r"\[1/3\] policy"), "loops/*/state.json")


@fault("truncated ledger of jobs", "jobs are submitted anew")
def truncated_ledger(run: Run) -> float:
    return _truncated(run, lambda run: run.wait_until_training(), "loops/*/jobs.json")


@fault("two loops on one folder", "the second is refused, the first goes on")
def two_loops(run: Run) -> float:
    run.start()
    run.wait_until_training()
    first = run.process
    happened = time.monotonic()
    run.start()
    _check(run.end() == 2, "expected exit 2", run)
    _check("another loop is running on this results folder" in run.output, "the reason is told", run)
    run.process = first
    run.finish()
    return happened


@fault("Ctrl-C twice", "jobs go on, the same command finds them")
def interrupt_twice(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    with _stopped(run, job):
        run.kill(signal.SIGINT)
        time.sleep(0.05)
        run.kill(signal.SIGINT)
        happened = time.monotonic()
        _check(run.end() != 0, "expected another exit than 0", run)
        run.start()
        run.wait_until_said(f"found 1 jobs of this run again: {job}")
    run.finish()
    return happened


@fault(
    "two seeds side by side, one killed in the middle",
    "one results root, both with the results that each has alone",
    from_nothing=True,
)
def side_by_side(run: Run) -> float:
    alone = run.sibling("alone", diffusion_seed=1)
    alone.again()
    beside = run.sibling("beside", diffusion_seed=1)
    beside.data, beside.results, beside.logs = run.data, run.results, run.logs
    run.start()
    beside.start()
    run.wait_until_training()
    run.kill()
    happened = time.monotonic()
    run.start()
    run.finish()
    beside.finish()
    other = differing(beside.digest(), alone.digest())
    _check(not other, f"other results than alone: {other}", beside)
    _check(not other and len(beside.digest()) > 5, "there are results", beside)
    return happened


@fault(
    "the clock jumps: two hours back, then three days on",
    "for the loop and its jobs; nothing is decided by the time of day",
    needs="cc",
)
def clock_jumps(run: Run) -> float:
    offset, library = run.folder / "offset", run.folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    write_text(offset, "0\n")
    run.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    run.start()
    run.wait_until_training()
    write_text(offset, f"{-2 * 3600}\n")
    run.wait_until_said(r"iteration 0: generate")
    write_text(offset, f"{3 * 86400}\n")
    happened = time.monotonic()
    run.finish()
    _check(max(run.jobs_per_stage().values()) == 1, f"jobs per stage: {run.jobs_per_stage()}", run)
    days = {line[:10] for line in run.output.splitlines() if line[:2] == "20"}
    _check(len(days) > 1, f"the log shows no jump: {days}", run)
    return happened


@fault("a site without accounting: kill -9 of a job", "decided by squeue and the job's files", accounting=False)
def no_accounting(run: Run) -> float:
    return kill_job(run)


@fault(
    "a job that vanished from the scheduler, without accounting",
    "looked for in its files, then again",
    accounting=False,
)
def vanished(run: Run) -> float:
    run.start()
    job = run.wait_until_training()
    run.cluster.forget_jobs()
    for pid in run.job_pids(job):
        os.kill(pid, signal.SIGKILL)
    happened = time.monotonic()
    run.wait_until_said("unknown to the scheduler, and no artifact; trying again")
    run.finish()
    return happened
