"""Which generated sets are good, and how the threshold adapts (pure functions, exact arithmetic).

A success rate is a fraction of counts, never a rounded float: a mean of exactly 0.8 is not above a threshold of 0.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from offline_compositional_rl_datasets.task import Task
from runtime.errors import DataError


@dataclass(frozen=True)
class Score:
    """One policy's successes: `solved` of `trials` episodes, and its mean return.

    Raises `DataError` where that cannot be.
    """

    solved: int
    trials: int
    mean_return: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.solved <= self.trials or self.trials < 1:
            raise DataError(f"{self.solved} of {self.trials} episodes solved: expected 0 to all of 1 or more")

    @property
    def rate(self) -> Fraction:
        return Fraction(self.solved, self.trials)


def task_rate(scores: Mapping[int, Score]) -> Fraction:
    """Mean success rate over the seeds of a task."""
    return sum((score.rate for score in scores.values()), Fraction(0)) / len(scores)


@dataclass(frozen=True)
class Threshold:
    """The acceptance threshold, a decimal, and for how many iterations in a row nothing was good."""

    value: Decimal
    misses: int = 0


@dataclass(frozen=True)
class ThresholdRule:
    amount: Decimal
    cycle: int
    minimum: Decimal


@dataclass(frozen=True)
class Selection:
    """The verdict of an iteration. `reduced_from` is the threshold before, where it was lowered.

    Of the good ones those in `practised` are accepted with the set that practice made of the generated one.
    """

    good: tuple[Task, ...]
    bad: tuple[Task, ...]
    threshold: Threshold
    reduced_from: Decimal | None = None
    practised: tuple[Task, ...] = ()


def select(rates: Mapping[Task, Fraction], threshold: Threshold, rule: ThresholdRule) -> Selection:
    """Split the scored tasks; with none good for `cycle` iterations lower the threshold once and split again.

    Good is strictly above the threshold (ICDG; spec of the published loop).
    """
    good, bad = _split(rates, threshold.value)
    if good:
        return Selection(good, bad, Threshold(threshold.value, 0))
    misses = threshold.misses + 1
    lowered = max(threshold.value - rule.amount, rule.minimum)
    if misses < rule.cycle or lowered >= threshold.value:
        return Selection(good, bad, Threshold(threshold.value, misses))
    good, bad = _split(rates, lowered)
    return Selection(good, bad, Threshold(lowered, 0 if good else 1), reduced_from=threshold.value)


def _split(rates: Mapping[Task, Fraction], threshold: Decimal) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    limit = Fraction(threshold)
    return (
        tuple(task for task, rate in rates.items() if rate > limit),
        tuple(task for task, rate in rates.items() if rate <= limit),
    )
