"""The state of a loop: one value that is never changed, and what follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.selection import Score, Selection, Threshold, task_rate


@dataclass(frozen=True)
class Iteration:
    """What happened in one iteration.

    `scores`: task -> RL seed -> successes. `failed`: tasks whose jobs failed for good; they are tried again next time.
    `sources`: accepted sets that trained the generator, iteration -> tasks. `seconds`: per stage. `practised`: scores
    like `scores`, of policies trained on practised sets; they are never mixed with those of generated sets alone.
    """

    index: int
    targets: tuple[Task, ...]
    sources: Mapping[int, tuple[Task, ...]]
    phase: str | None
    scores: Mapping[Task, Mapping[int, Score]] = field(default_factory=dict)
    failed: tuple[Task, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    selection: Selection | None = None
    practised: Mapping[Task, Mapping[int, Score]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.selection is not None

    @property
    def verdict(self) -> Selection:
        """The selection of a complete iteration."""
        if self.selection is None:
            raise RuntimeError(f"iteration {self.index} is not complete")
        return self.selection

    def rate(self, task: Task) -> Fraction | None:
        scores = self.scores.get(task)
        return task_rate(scores) if scores else None

    def practised_rate(self, task: Task) -> Fraction | None:
        scores = self.practised.get(task)
        return task_rate(scores) if scores else None

    def rates(self) -> dict[Task, Fraction]:
        """Every scored task's success by the better of its sets, the generated one and the practised one."""
        known = {task: [self.rate(task), self.practised_rate(task)] for task in self.targets}
        return {
            task: max(r for r in both if r is not None)
            for task, both in known.items()
            if any(r is not None for r in both)
        }

    def by_practice(self, task: Task) -> bool:
        """Whether the practised set is the better one."""
        strict, practised = self.rate(task), self.practised_rate(task)
        return practised is not None and (strict is None or practised > strict)


@dataclass(frozen=True)
class LoopState:
    """All iterations so far and the threshold for the next one. `outcome` once the loop has ended: why.

    `expert_data`: task name -> key of the file that it was begun with.
    """

    identity: Mapping[str, Any]
    threshold: Threshold
    iterations: tuple[Iteration, ...] = ()
    outcome: str | None = None
    expert_data: Mapping[str, str] = field(default_factory=dict)

    @property
    def current(self) -> Iteration | None:
        """The iteration under way."""
        return self.iterations[-1] if self.iterations and not self.iterations[-1].complete else None

    def closed(self) -> LoopState:
        """Without the iteration under way."""
        return dataclasses.replace(self, iterations=tuple(it for it in self.iterations if it.complete))

    @property
    def next_index(self) -> int:
        return len(self.iterations)

    def accepted(self) -> dict[int, tuple[Task, ...]]:
        """Good sets of all complete iterations, iteration -> tasks; iterations without any are left out."""
        return {it.index: it.selection.good for it in self.iterations if it.selection and it.selection.good}

    def accepted_in(self) -> dict[Task, int]:
        """Solved tasks, each with the iteration that accepted its set. A task is solved if, and only if, it is here."""
        return {task: i for i, tasks in self.accepted().items() for task in tasks}

    def solved(self, candidates: tuple[Task, ...]) -> tuple[Task, ...]:
        """Candidates with an accepted set, in their order."""
        accepted = self.accepted_in()
        return tuple(task for task in candidates if task in accepted)

    def remaining(self, candidates: tuple[Task, ...]) -> tuple[Task, ...]:
        """Candidates without an accepted set, in their order."""
        accepted = self.accepted_in()
        return tuple(task for task in candidates if task not in accepted)

    def begin(self, iteration: Iteration) -> LoopState:
        return dataclasses.replace(self, iterations=(*self.iterations, iteration), outcome=None)

    def update(self, **changes: Any) -> LoopState:
        """The state with the last iteration changed."""
        last = dataclasses.replace(self.iterations[-1], **changes)
        return dataclasses.replace(self, iterations=(*self.iterations[:-1], last))

    def finish(self, selection: Selection) -> LoopState:
        return dataclasses.replace(self.update(selection=selection), threshold=selection.threshold)

    def end(self, outcome: str) -> LoopState:
        return dataclasses.replace(self, outcome=outcome)

    def best(self, task: Task) -> tuple[Fraction, int] | None:
        """The highest success rate of a task and the first iteration that reached it; None if it never had a score."""
        rates = [(rate, it.index) for it in self.iterations if (rate := it.rate(task)) is not None]
        return max(rates, key=lambda pair: (pair[0], -pair[1])) if rates else None
