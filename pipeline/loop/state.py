"""The state of a loop: one value, in one JSON file, written atomically after every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.selection import Score, Selection, Threshold, task_rate
from runtime.atomic import read_json, write_json
from runtime.config import to_dict
from runtime.errors import DataError, StateError, UserError, one_line
from runtime.records import decode

VERSION = 1

Parse = Callable[[str], Task]
"""A family's task of a name; raises `TaskError` where there is none."""


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
    write_json(path, to_dict(_encode(state)))


def load_state(path: Path, parse: Parse) -> LoopState:
    """Raises `DataError` for a file that is missing or damaged, `StateError` for one of another version."""
    raw = read_json(path)
    version = raw.get("version") if isinstance(raw, dict) else None
    if type(version) is int and version != VERSION:
        raise StateError(f"{path}: state of version {version}, expected {VERSION}; choose another results_path")
    record = decode(_State, raw, source=str(path))
    try:
        return _checked(_decode(record, parse))
    except (UserError, ArithmeticError, ValueError) as error:
        raise DataError(f"{path}: not a state of the loop ({one_line(error)})") from error


# What is in the file. Its dataclasses are written as they are and decoded key by key.


@dataclass(frozen=True)
class _Threshold:
    value: str
    misses: int


@dataclass(frozen=True)
class _Selection:
    good: list[str]
    bad: list[str]
    threshold: _Threshold
    reduced_from: str | None
    practised: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Iteration:
    index: int
    targets: list[str]
    sources: Mapping[str, list[str]]
    phase: str | None
    scores: Mapping[str, Mapping[str, Score]]
    failed: list[str]
    seconds: Mapping[str, float]
    selection: _Selection | None
    practised: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)


@dataclass(frozen=True)
class _State:
    version: int
    identity: Mapping[str, Any]
    threshold: _Threshold
    outcome: str | None
    expert_data: Mapping[str, str]
    iterations: list[_Iteration]


def _encode(state: LoopState) -> _State:
    return _State(
        version=VERSION,
        identity=state.identity,
        threshold=_encode_threshold(state.threshold),
        outcome=state.outcome,
        expert_data=state.expert_data,
        iterations=[
            _Iteration(
                index=it.index,
                targets=_names(it.targets),
                sources={str(i): _names(tasks) for i, tasks in it.sources.items()},
                phase=it.phase,
                scores=_encode_scores(it.scores),
                failed=_names(it.failed),
                seconds=it.seconds,
                selection=None if it.selection is None else _encode_selection(it.selection),
                practised=_encode_scores(it.practised),
            )
            for it in state.iterations
        ],
    )


def _encode_selection(selection: Selection) -> _Selection:
    reduced_from = None if selection.reduced_from is None else str(selection.reduced_from)
    threshold = _encode_threshold(selection.threshold)
    practised = _names(selection.practised)
    return _Selection(_names(selection.good), _names(selection.bad), threshold, reduced_from, practised)


def _encode_scores(scores: Mapping[Task, Mapping[int, Score]]) -> dict[str, dict[str, Score]]:
    return {task.name: {str(seed): score for seed, score in own.items()} for task, own in scores.items()}


def _decode_scores(scores: Mapping[str, Mapping[str, Score]], parse: Parse) -> dict[Task, dict[int, Score]]:
    return {parse(name): {int(seed): score for seed, score in own.items()} for name, own in scores.items()}


def _encode_threshold(threshold: Threshold) -> _Threshold:
    return _Threshold(str(threshold.value), threshold.misses)


def _decode(record: _State, parse: Parse) -> LoopState:
    return LoopState(
        identity=record.identity,
        threshold=_decode_threshold(record.threshold),
        outcome=record.outcome,
        expert_data=record.expert_data,
        iterations=tuple(
            Iteration(
                index=it.index,
                targets=_tasks(it.targets, parse),
                sources={int(i): _tasks(names, parse) for i, names in it.sources.items()},
                phase=it.phase,
                scores=_decode_scores(it.scores, parse),
                failed=_tasks(it.failed, parse),
                seconds=it.seconds,
                selection=None if it.selection is None else _decode_selection(it.selection, parse),
                practised=_decode_scores(it.practised, parse),
            )
            for it in record.iterations
        ),
    )


def _decode_selection(record: _Selection, parse: Parse) -> Selection:
    reduced_from = None if record.reduced_from is None else _share(record.reduced_from)
    verdicts = _tasks(record.good, parse), _tasks(record.bad, parse)
    return Selection(*verdicts, _decode_threshold(record.threshold), reduced_from, _tasks(record.practised, parse))


def _decode_threshold(record: _Threshold) -> Threshold:
    return Threshold(_share(record.value), record.misses)


def _share(text: str) -> Decimal:
    value = Decimal(text)
    if not 0 <= value <= 1:
        raise DataError(f"threshold {text}: expected 0 to 1")
    return value


def _names(tasks: Sequence[Task]) -> list[str]:
    return [task.name for task in tasks]


def _tasks(names: Sequence[str], parse: Parse) -> tuple[Task, ...]:
    return tuple(parse(name) for name in names)


def _checked(state: LoopState) -> LoopState:
    """The state. Raises `DataError` where its parts contradict each other, which would end in a fault much later."""
    for place, it in enumerate(state.iterations):
        last = place == len(state.iterations) - 1
        judged = () if it.selection is None else (*it.selection.good, *it.selection.bad)
        strangers = {*it.scores, *it.practised, *it.failed, *judged} - set(it.targets)
        if it.index != place or not (it.complete or last):
            raise DataError(f"iteration {it.index} in place {place}: expected iterations 0, 1, ..., only the last open")
        empty = not all((*it.scores.values(), *it.practised.values()))
        if it.selection is not None and not {*it.selection.practised} <= {*it.selection.good}:
            raise DataError(f"iteration {place}: practised sets that were not accepted")
        if strangers or empty or any(not 0 <= i < place for i in it.sources):
            raise DataError(f"iteration {place}: scores, verdicts and sources of other tasks or iterations than it has")
    return state
