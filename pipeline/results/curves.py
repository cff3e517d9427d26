"""Learning curves: aligned over seeds, their interval, and when they first solve a task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Curve = dict[int, float]
"""Environment steps -> success."""

_RESAMPLES = 2000

SOLVED_AT = 0.8
"""The success of an evaluation at which a task counts as solved."""


def first_solved(curve: Curve, success: float = SOLVED_AT) -> int | None:
    """The step of the first evaluation with that success; None where there is none."""
    return min((step for step, value in curve.items() if value >= success), default=None)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % percentile-bootstrap interval of the mean over seeds, of values (seeds, ...); None for a single seed."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    result = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, axis=0, method="percentile", rng=np.random.default_rng(0)
    )
    return result.confidence_interval.low, result.confidence_interval.high


def aligned(curves: Mapping[int, Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (T,) and success (seeds, T): a seed keeps its value until its next evaluation, and after its last one."""
    steps = np.array(sorted({step for curve in curves.values() for step in curve}))
    steps = steps[steps >= max(min(curve) for curve in curves.values())]
    values = [[curve[max(s for s in curve if s <= step)] for step in steps] for curve in curves.values()]
    return steps, np.array(values)
