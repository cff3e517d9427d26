"""How sure a success rate is."""

from __future__ import annotations


def wilson(solved: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate."""
    from scipy.stats import binomtest  # here, so that learners run where torch and numpy are all there is

    interval = binomtest(solved, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
