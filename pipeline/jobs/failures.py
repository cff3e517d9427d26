"""Why a job failed, and what follows from that. Pure: evidence in, decision out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.jobs.resources import Resources, RetryConfig


class Cause(str, Enum):
    """What ended a job without its artifact."""

    MEMORY = "memory"
    TIME = "time"
    SYSTEM = "system"  # node failure, preemption, cancelled by the system, killed
    CANCELLED = "cancelled"  # by the user
    DEVICE = "device"  # the GPU, its driver or its memory
    PROGRAM = "program"  # an exception
    INPUT = "input"  # what the user has to mend
    REFUSED = "refused"  # the scheduler did not take the job
    VANISHED = "vanished"  # neither scheduler nor accounting know it any more


_LIMITS = {Cause.PROGRAM: 1, Cause.REFUSED: 2, Cause.DEVICE: 3}  # tries after the first, where max_retries is not it
_AT_ONCE = (Cause.PROGRAM, Cause.MEMORY, Cause.TIME)  # waiting helps none of these
_LONGEST_DELAY_SECONDS = 3600.0

_MEMORY_LOG = re.compile(
    r"exceeded memory limit|oom[-_ ]kill|Out Of Memory|MemoryError|DefaultCPUAllocator: not enough"
)
_DEVICE_LOG = re.compile(r"CUDA (error|out of memory|driver)|CUDNN_STATUS|CUBLAS_STATUS|NVML|uncorrectable|\bECC\b")
_LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "REQUEUED", "SPECIAL_EXIT", "STOPPED", "SUSPENDED")


@dataclass(frozen=True)
class Evidence:
    """What is known of a job that is over: the scheduler's state, the job's own note, the end of its log.

    `cancelled_by_user` is None where nobody recorded who cancelled it. `outcome` is the note (see `JobCall`) or None.
    """

    state: str
    outcome: Mapping[str, Any] | None = None
    log_tail: str = ""
    node: str = ""
    cancelled_by_user: bool | None = None


@dataclass(frozen=True)
class Failure:
    """`reason` is one line for people; `trace` the last lines of a traceback, where there is one."""

    cause: Cause
    reason: str
    node: str = ""
    trace: tuple[str, ...] = ()


def classify(evidence: Evidence) -> Failure:
    """The cause: the job's own note first, then the scheduler's state, then the log."""
    state, node, outcome = evidence.state, evidence.node, evidence.outcome or {}

    def failure(cause: Cause, reason: str, trace: tuple[str, ...] = ()) -> Failure:
        return Failure(cause, reason, node, trace)

    if outcome.get("outcome") == "error":
        message, trace = outcome["message"], tuple(outcome["trace"])
        if outcome["user"]:
            return failure(Cause.INPUT, message)
        if outcome.get("device") or _DEVICE_LOG.search(message):
            return failure(Cause.DEVICE, message, trace)
        # The kernel may have killed another process than the one that left the note, which tells what it missed.
        of_memory = _MEMORY_LOG.search(message) or "OUT_OF_ME" in state
        return failure(Cause.MEMORY if of_memory else Cause.PROGRAM, message, trace)
    if outcome.get("outcome") == "timeout":
        return failure(Cause.TIME, "out of time too often")
    if "OUT_OF_ME" in state or ("COMPLETED" not in state and _MEMORY_LOG.search(evidence.log_tail)):
        return failure(Cause.MEMORY, "out of memory")
    if state.startswith(("TIMEOUT", "DEADLINE")):
        return failure(Cause.TIME, "out of time")
    if state.startswith("CANCELLED"):
        by_system = evidence.cancelled_by_user is False
        return failure(
            Cause.SYSTEM if by_system else Cause.CANCELLED, f"cancelled by the {'system' if by_system else 'user'}"
        )
    if state.startswith(_LOST):
        return failure(Cause.SYSTEM, state.split()[0].replace("_", " ").lower())
    if state == "VANISHED":
        return failure(Cause.VANISHED, "unknown to the scheduler, and no artifact")
    if outcome.get("outcome") != "interrupted" and "Traceback (most recent call last)" in evidence.log_tail:
        lines = tuple(evidence.log_tail.strip().splitlines())
        cause = Cause.DEVICE if _DEVICE_LOG.search(evidence.log_tail) else Cause.PROGRAM
        return failure(cause, _exception_line(lines), lines[-8:])
    return failure(Cause.SYSTEM, f"ended without a result (state {state})")


def _exception_line(lines: tuple[str, ...]) -> str:
    """The last line that names an exception, else the last line."""
    named = [line for line in lines if re.match(r"^[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return (named or lines)[-1].strip()


@dataclass(frozen=True)
class Tries:
    """How often a stage was tried and failed for each cause, and what it has been given since."""

    tries: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def another(self) -> Tries:
        return dataclasses.replace(self, tries=self.tries + 1)


@dataclass(frozen=True)
class Decision:
    """What follows a failure: another try (with which resources, after which delay), or a reason to give up.

    `stop` ends the whole loop and not this stage alone.
    """

    line: str
    tries: Tries
    resources: Resources
    delay: float = 0.0
    give_up: str | None = None
    stop: bool = False


def decide(
    failure: Failure, resources: Resources, tries: Tries, retry: RetryConfig, fixed_memory: str | None = None
) -> Decision:
    """Decide by the cause what follows a failed try. `fixed_memory`: why no more memory can be asked for."""
    cause, reason = failure.cause, failure.reason
    count = tries.failures.get(cause.value, 0) + 1
    tries = dataclasses.replace(tries, failures={**tries.failures, cause.value: count})

    def give_up(why: str, stop: bool = False) -> Decision:
        return Decision(why, tries, resources, give_up=why, stop=stop)

    if cause is Cause.CANCELLED:
        return give_up(reason, stop=True)
    if cause is Cause.INPUT:
        return give_up(reason)
    if tries.tries > retry.max_retries:
        return give_up(f"{reason} (after {tries.tries} tries)")
    if count > _LIMITS.get(cause, count):
        return give_up(reason)
    change = ""
    if cause is Cause.MEMORY:
        if fixed_memory is not None:
            return give_up(f"{reason}; {fixed_memory}")
        grown = min(round(resources.memory_gb * retry.retry_memory_multiplier), retry.max_memory_gb)
        if grown <= resources.memory_gb:
            return give_up(f"{reason} with {resources.memory_gb} GB (max_memory_gb is {retry.max_memory_gb})")
        change = f" with {grown} GB instead of {resources.memory_gb}"
        resources = dataclasses.replace(resources, memory_gb=grown)
    elif cause is Cause.TIME:
        hours = min(resources.hours * retry.retry_time_multiplier, retry.max_time_hours)
        if hours <= resources.hours:
            return give_up(f"{reason} after {resources.hours} hours (max_time_hours is {retry.max_time_hours})")
        change = f" from its checkpoint with {hours:g} hours instead of {resources.hours:g}"
        resources = dataclasses.replace(resources, hours=hours)
    elif cause is Cause.DEVICE and failure.node:
        tries = dataclasses.replace(tries, exclude=tuple(sorted({*tries.exclude, failure.node})))
        change = f" elsewhere than on {failure.node}"
    delay = 0.0 if cause in _AT_ONCE else min(retry.retry_delay * 2 ** min(count - 1, 12), _LONGEST_DELAY_SECONDS)
    when = f" in {delay:g} s" if delay else ""
    line = f"{reason}; trying again{change}{when} ({tries.tries} of {retry.max_retries})"
    return Decision(line, tries, resources, delay)
