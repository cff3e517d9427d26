"""The state of a loop as a JSON file, written atomically after every step and read with all that may be wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.selection import Score, Selection, Threshold
from pipeline.loop.state import Iteration, LoopState
from runtime.atomic import read_json, write_json
from runtime.config import to_dict
from runtime.errors import DataError, StateError, UserError, one_line
from runtime.records import decode

VERSION = 1

Parse = Callable[[str], Task]
"""A family's task of a name; raises `TaskError` where there is none."""


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
