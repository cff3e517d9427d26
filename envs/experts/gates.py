"""Smooth gates: weights from 0 to 1 in place of switches, because the data must be clonable."""

from __future__ import annotations

import numpy as np


def gate(margin: np.ndarray, width: float) -> np.ndarray:
    """1 where `margin` is well above 0, 0 where it is well below; half at 0 and steep over `width`."""
    return 0.5 * (1.0 + np.tanh(0.5 * margin / width))


def near(distance: np.ndarray, radius: float) -> np.ndarray:
    """1 at distance 0, falling off over `radius`."""
    weight: np.ndarray = np.exp(-((distance / radius) ** 2))
    return weight


def blend(weight: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, ...) `a` where `weight` (B,) is 0, `b` where it is 1."""
    blended: np.ndarray = a + (weight if a.ndim == 1 else weight[:, None]) * (b - a)
    return blended
