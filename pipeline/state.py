"""The state of a loop: one value, in one JSON file, written atomically after every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.selection import Score, Selection, Threshold, task_rate
from runtime.atomic import read_json, write_json
from runtime.errors import DataError

VERSION = 1


@dataclass(frozen=True)
class Iteration:
    """What happened in one iteration.

    `scores`: task -> RL seed -> successes. `failed`: tasks whose jobs failed for good; they are tried again next time.
    `sources`: accepted sets that trained the generator, iteration -> tasks. `seconds`: per stage.
    """

    index: int
    targets: tuple[Task, ...]
    sources: Mapping[int, tuple[Task, ...]]
    phase: str | None
    scores: Mapping[Task, Mapping[int, Score]] = field(default_factory=dict)
    failed: tuple[Task, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    selection: Selection | None = None

    @property
    def complete(self) -> bool:
        return self.selection is not None

    def rate(self, task: Task) -> Fraction | None:
        scores = self.scores.get(task)
        return task_rate(scores) if scores else None


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

    @property
    def next_index(self) -> int:
        return len(self.iterations)

    def accepted(self) -> dict[int, tuple[Task, ...]]:
        """Good sets of all complete iterations, iteration -> tasks; iterations without any are left out."""
        return {it.index: it.selection.good for it in self.iterations if it.complete and it.selection.good}

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
        rates = [(it.rate(task), it.index) for it in self.iterations if it.rate(task) is not None]
        return max(rates, key=lambda pair: (pair[0], -pair[1])) if rates else None


def save_state(path: Path, state: LoopState) -> None:
    write_json(path, _encode(state))


def load_state(path: Path) -> LoopState:
    """Raises `DataError` for a missing file or one that this version did not write."""
    raw = read_json(path)
    try:
        if raw["version"] != VERSION:
            raise DataError(f"{path}: state of version {raw['version']}, expected {VERSION}")
        return _decode(raw)
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
        raise DataError(f"{path}: not a state of the loop ({type(error).__name__}: {error})") from error


def _encode(state: LoopState) -> dict[str, Any]:
    return {
        "version": VERSION,
        "identity": dict(state.identity),
        "threshold": _encode_threshold(state.threshold),
        "outcome": state.outcome,
        "expert_data": dict(state.expert_data),
        "iterations": [
            {
                "index": it.index,
                "targets": [task.name for task in it.targets],
                "sources": {str(i): [task.name for task in tasks] for i, tasks in it.sources.items()},
                "phase": it.phase,
                "scores": {
                    task.name: {str(seed): dataclasses.asdict(score) for seed, score in scores.items()}
                    for task, scores in it.scores.items()
                },
                "failed": [task.name for task in it.failed],
                "seconds": dict(it.seconds),
                "selection": None
                if it.selection is None
                else {
                    "good": [task.name for task in it.selection.good],
                    "bad": [task.name for task in it.selection.bad],
                    "threshold": _encode_threshold(it.selection.threshold),
                    "reduced_from": None if it.selection.reduced_from is None else str(it.selection.reduced_from),
                },
            }
            for it in state.iterations
        ],
    }


def _encode_threshold(threshold: Threshold) -> dict[str, Any]:
    return {"value": str(threshold.value), "misses": threshold.misses}


def _decode(raw: Mapping[str, Any]) -> LoopState:
    return LoopState(
        identity=raw["identity"],
        threshold=_decode_threshold(raw["threshold"]),
        outcome=raw["outcome"],
        expert_data=raw["expert_data"],
        iterations=tuple(
            Iteration(
                index=it["index"],
                targets=_tasks(it["targets"]),
                sources={int(i): _tasks(names) for i, names in it["sources"].items()},
                phase=it["phase"],
                scores={
                    Task.parse(name): {int(seed): Score(**score) for seed, score in scores.items()}
                    for name, scores in it["scores"].items()
                },
                failed=_tasks(it["failed"]),
                seconds=it["seconds"],
                selection=None if it["selection"] is None else _decode_selection(it["selection"]),
            )
            for it in raw["iterations"]
        ),
    )


def _decode_selection(raw: Mapping[str, Any]) -> Selection:
    return Selection(
        good=_tasks(raw["good"]),
        bad=_tasks(raw["bad"]),
        threshold=_decode_threshold(raw["threshold"]),
        reduced_from=None if raw["reduced_from"] is None else Decimal(raw["reduced_from"]),
    )


def _decode_threshold(raw: Mapping[str, Any]) -> Threshold:
    return Threshold(Decimal(raw["value"]), raw["misses"])


def _tasks(names: list[str]) -> tuple[Task, ...]:
    return tuple(Task.parse(name) for name in names)
