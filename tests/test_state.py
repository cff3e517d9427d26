from decimal import Decimal
from fractions import Fraction

import pytest

from offline_compositional_rl_datasets.task import all_tasks
from pipeline.selection import Score, Selection, Threshold
from pipeline.sources import parse_sources
from pipeline.state import Iteration, LoopState, load_state, save_state
from runtime.errors import ConfigError, DataError, TaskError

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
    assert load_state(tmp_path / "state.json") == state


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


@pytest.mark.parametrize("text", ["{}", "[]", '{"version": 99}', '{"version": 1, "identity": {}}', "not json"])
def test_a_file_that_is_no_state_is_named(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"state\.json"):
        load_state(path)


def test_source_tasks_parse_from_the_published_form():
    assert parse_sources([f"0:{A},{B}", f"2:{C}"]) == {0: (A, B), 2: (C,)}
    with pytest.raises(ConfigError, match="expected RUN:TASK,TASK"):
        parse_sources([str(A)])
    with pytest.raises(ConfigError, match=f"--source_tasks 2: {A}, {B}, {A}: expected one or more, none of them twice"):
        parse_sources([f"2:{A},{B}", f"2:{A}"])
    with pytest.raises(TaskError):
        parse_sources(["0:IIWA_Cup_None_Push"])
