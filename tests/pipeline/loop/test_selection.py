from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_compositional_rl_datasets.composuite import AXES, CompoSuiteTask, all_tasks, curriculum_axes
from pipeline.loop.curriculum import Phase, filter_sources, phase_of, schedule
from pipeline.loop.selection import Score, Threshold, ThresholdRule, select, task_rate
from tests.benchmark_axes import benchmark_axes

A, B, C = all_tasks()[:3]
RULE = ThresholdRule(amount=Decimal("0.1"), cycle=1, minimum=Decimal("0.5"))


def _threshold(value, misses=0):
    return Threshold(Decimal(value), misses)


def test_good_is_strictly_above_the_threshold():
    rates = {A: Fraction(8, 10), B: Fraction(81, 100), C: Fraction(0)}
    selection = select(rates, _threshold("0.8"), RULE)
    assert (selection.good, selection.bad) == ((B,), (A, C))
    assert selection.reduced_from is None


def test_a_mean_of_exactly_the_threshold_never_rounds_to_above_it():
    fixed = ThresholdRule(Decimal("0.1"), cycle=1, minimum=Decimal("0.8"))
    for tenths in ((8, 8, 8, 8, 8), (10, 10, 10, 10, 0), (7, 9, 8, 6, 10), (9, 9, 9, 9, 4)):
        rate = task_rate({seed: Score(k, 10) for seed, k in enumerate(tenths)})
        assert rate == Fraction(8, 10)
        assert select({A: rate}, _threshold("0.8"), fixed).good == ()


def test_the_threshold_falls_once_per_iteration_to_the_minimum_and_no_further():
    threshold, seen = _threshold("0.8"), []
    for _ in range(5):
        selection = select({A: Fraction(0)}, threshold, RULE)
        threshold = selection.threshold
        seen.append(threshold.value)
    assert seen == [Decimal(x) for x in ("0.7", "0.6", "0.5", "0.5", "0.5")]
    # Lowering leaves the count at 1; at the minimum it goes on counting.
    assert threshold.misses == 3


def test_a_lowered_threshold_is_applied_to_the_same_scores():
    selection = select({A: Fraction(3, 4), B: Fraction(7, 10)}, _threshold("0.8"), RULE)
    assert selection.good == (A,)
    assert selection.reduced_from == Decimal("0.8")
    assert selection.threshold == _threshold("0.7", 0)


def test_a_longer_cycle_waits_before_lowering():
    rule = ThresholdRule(Decimal("0.1"), cycle=3, minimum=Decimal("0.5"))
    threshold = _threshold("0.8")
    for misses in (1, 2):
        threshold = select({A: Fraction(0)}, threshold, rule).threshold
        assert threshold == _threshold("0.8", misses)
    assert select({A: Fraction(0)}, threshold, rule).threshold == _threshold("0.7", 1)


def test_a_good_set_resets_the_count():
    assert select({A: Fraction(1)}, _threshold("0.8", 7), RULE).threshold == _threshold("0.8", 0)


@given(
    st.dictionaries(st.sampled_from(all_tasks()), st.fractions(0, 1), max_size=8),
    st.integers(0, 10),
    st.integers(0, 5),
)
def test_every_scored_task_is_good_or_bad_and_the_threshold_never_rises(rates, tenths, misses):
    before = Threshold(Decimal(tenths) / 10, misses)
    rule = ThresholdRule(Decimal("0.1"), 1, min(Decimal("0.5"), before.value))
    selection = select(rates, before, rule)
    assert sorted((*selection.good, *selection.bad)) == sorted(rates)
    assert before.value >= selection.threshold.value >= rule.minimum


# The schedules of the published code for seeds 0 to 4, each axis' phases ending with ALL.
PUBLISHED = {
    0: "object Plate Box Dumbbell Hollowbox; robot IIWA Kinova3 Panda Jaco; "
    "objective PickPlace Trashcan Push Shelf; obstacle ObjectWall ObjectDoor None GoalWall",
    1: "obstacle None GoalWall ObjectDoor ObjectWall; robot IIWA Kinova3 Panda Jaco; "
    "object Hollowbox Dumbbell Plate Box; objective Push Shelf PickPlace Trashcan",
    2: "objective Push PickPlace Trashcan Shelf; object Box Plate Dumbbell Hollowbox; "
    "obstacle GoalWall None ObjectWall ObjectDoor; robot IIWA Panda Kinova3 Jaco",
    3: "obstacle ObjectDoor GoalWall None ObjectWall; robot Panda Jaco Kinova3 IIWA; "
    "object Hollowbox Plate Box Dumbbell; objective Trashcan Push Shelf PickPlace",
    4: "object Hollowbox Plate Box Dumbbell; robot Panda Kinova3 Jaco IIWA; "
    "obstacle ObjectDoor GoalWall ObjectWall None; objective Shelf PickPlace Push Trashcan",
}


@benchmark_axes
@pytest.mark.parametrize("seed", PUBLISHED)
def test_a_seed_gives_the_published_curriculum(seed):
    expected = []
    for group in PUBLISHED[seed].split("; "):
        axis, *elements = group.split()
        expected += [Phase(axis, element) for element in elements] + [Phase(axis, None)]
    assert schedule(curriculum_axes(), seed) == expected


@pytest.mark.parametrize("axis", AXES)
def test_an_element_that_was_added_to_an_axis_has_its_phase(axis, monkeypatch):
    monkeypatch.setitem(AXES, axis, (*AXES[axis], "Novel"))
    for seed in range(3):
        phases = schedule(curriculum_axes(), seed)
        assert len(phases) == sum(len(elements) + 1 for elements in AXES.values())
        assert {(p.axis, p.element) for p in phases if p.element} == {(a, e) for a in AXES for e in AXES[a]}
        assert Phase(axis, "Novel") in [phase_of(i, curriculum_axes(), seed) for i in range(5, 5 + len(phases))]


def test_the_curriculum_starts_with_iteration_5_and_repeats_when_all_phases_were_there():
    phases = schedule(curriculum_axes(), 0)
    assert [phase_of(i, curriculum_axes(), 0) for i in range(5)] == [None] * 5
    assert [phase_of(5 + i, curriculum_axes(), 0) for i in range(2 * len(phases))] == 2 * phases


def test_a_phase_keeps_only_the_source_tasks_with_its_element():
    push, pick = CompoSuiteTask.parse("IIWA_Box_None_Push"), CompoSuiteTask.parse("IIWA_Plate_None_PickPlace")
    sources = {0: (push, pick), 2: (pick,)}
    assert filter_sources(sources, Phase("objective", "Push")) == {0: (push,), 2: ()}
    assert filter_sources(sources, Phase("objective", None)) == sources
    assert filter_sources(sources, None) == sources
