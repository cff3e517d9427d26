import json
from decimal import Decimal
from fractions import Fraction

import pytest

from offline_compositional_rl_datasets.composuite import CompoSuiteTask, all_tasks
from pipeline.commands.sources import parse_sources
from pipeline.loop.selection import Score, Selection, Threshold
from pipeline.loop.state import Iteration, LoopState
from pipeline.loop.state_file import _encode, load_state, save_state
from runtime.config import to_dict
from runtime.errors import ConfigError, DataError, StateError, TaskError

A, B, C = all_tasks()[:3]


def _finished(state, index, good, bad, scores):
    state = state.begin(Iteration(index, (*good, *bad), state.accepted(), None)).update(scores=scores)
    return state.finish(Selection(good, bad, Threshold(Decimal("0.7"), 1), reduced_from=Decimal("0.8")))


def _example():
    state = LoopState({"num_train": 2, "rl_seeds": [0, 1]}, Threshold(Decimal("0.8")))
    state = _finished(state, 0, (A,), (B, C), {A: {0: Score(9, 10, 300.5)}, B: {0: Score(1, 10), 1: Score(3, 10)}})
    state = _finished(state, 1, (), (B, C), {B: {0: Score(2, 10), 1: Score(2, 10)}, C: {0: Score(0, 10)}})
    return state.begin(Iteration(2, (B, C), state.accepted(), "object: Box", failed=(C,), seconds={"policy": 1.5}))


def test_the_state_reads_back_as_it_was_written(tmp_path):
    state = _example()
    save_state(tmp_path / "state.json", state)
    assert load_state(tmp_path / "state.json", CompoSuiteTask.parse) == state


def test_accepted_sets_add_up_and_their_tasks_are_not_generated_again():
    state = _example()
    assert state.accepted() == {0: (A,)}
    assert state.remaining((A, B, C)) == (B, C)


def test_a_task_without_a_score_stays_to_be_solved():
    state = LoopState({}, Threshold(Decimal("0.8")))
    state = _finished(state, 0, (A,), (B,), {A: {0: Score(9, 10)}, B: {0: Score(1, 10)}})
    assert C in state.remaining((A, B, C))


def test_the_best_iteration_of_a_task_is_the_first_with_its_highest_rate():
    assert _example().best(B) == (Fraction(1, 5), 0)
    assert _example().best(all_tasks()[9]) is None


def _changed(*keys, value):
    """What is written for the example, with another value in one place."""
    raw = json.loads(json.dumps(to_dict(_encode(_example()))))
    place = raw
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(raw)


DAMAGED = {
    "no json": "not json",
    "cut": _changed("version", value=1)[:300],
    "a list": "[]",
    "nothing": "{}",
    "null": "null",
    "a deep nest": "[" * 100_000,
    "keys missing": '{"version": 1, "identity": {}}',
    "another version as a word": '{"version": "2"}',
    "NaN": _changed("iterations", 0, "seconds", value={"policy": float("nan")}),
    "beyond a float": _changed("outcome", value=0).replace('"outcome": 0', '"outcome": 1e999'),
    "an unknown key": _changed("iterations", 0, "scoers", value={}),
    "words for numbers": _changed("iterations", 0, "index", value="0"),
    "true for a number": _changed("threshold", "misses", value=True),
    "no list": _changed("iterations", 0, "targets", value="Box"),
    "an unknown task": _changed("iterations", 0, "targets", value=["IIWA_Cup_None_Push"]),
    "a threshold that is none": _changed("threshold", "value", value="high"),
    "a threshold of NaN": _changed("threshold", "value", value="NaN"),
    "more solved than tried": _changed("iterations", 0, "scores", A.name, "0", "solved", value=11),
    "nothing tried": _changed(
        "iterations", 0, "scores", A.name, "0", value={"solved": 0, "trials": 0, "mean_return": 0}
    ),
    "a seed that is none": _changed("iterations", 0, "scores", A.name, value={"x": vars(Score(1, 2))}),
    "no seeds": _changed("iterations", 0, "scores", A.name, value={}),
    "scores of another task": _changed("iterations", 2, "scores", A.name, value={"0": vars(Score(1, 2))}),
    "an iteration too early": _changed("iterations", 1, "index", value=5),
    "an open iteration before others": _changed("iterations", 0, "selection", value=None),
    "sources of a later iteration": _changed("iterations", 2, "sources", value={"7": [A.name]}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_state_is_named_in_one_line(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"^{path}: ") as told:
        load_state(path, CompoSuiteTask.parse)
    assert len(str(told.value)) < 400


def test_a_state_of_another_version_is_not_taken_for_a_damaged_one(tmp_path):
    (tmp_path / "state.json").write_text('{"version": 99, "future": true}')
    with pytest.raises(StateError, match=r"state\.json: state of version 99, expected 1"):
        load_state(tmp_path / "state.json", CompoSuiteTask.parse)


def test_a_state_that_is_no_text_is_named(tmp_path):
    (tmp_path / "state.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"state\.json: not a JSON file"):
        load_state(tmp_path / "state.json", CompoSuiteTask.parse)


def test_source_tasks_parse_from_the_published_form():
    assert parse_sources([f"0:{A},{B}", f"2:{C}"], CompoSuiteTask.parse) == {0: (A, B), 2: (C,)}
    with pytest.raises(ConfigError, match="expected RUN:TASK,TASK"):
        parse_sources([str(A)], CompoSuiteTask.parse)
    with pytest.raises(ConfigError, match=f"--source_tasks 2: {A}, {B}, {A}: expected one or more, none of them twice"):
        parse_sources([f"2:{A},{B}", f"2:{A}"], CompoSuiteTask.parse)
    with pytest.raises(TaskError):
        parse_sources(["0:IIWA_Cup_None_Push"], CompoSuiteTask.parse)
