"""Which jobs go into which array, and how many may run at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.jobs.attempts import Attempt


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
