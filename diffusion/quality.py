"""What can be said of a generated set before any policy is trained on it (numpy alone; seconds for a million rows)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion.config import QualityConfig
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.transitions import check_array
from runtime.atomic import atomic_path
from runtime.errors import DataError
from runtime.npz import NUMBERS, read_npz

LEVELS = np.linspace(0.005, 0.995, 100)
"""Quantile levels that stand for a distribution."""

_ROWS = 20_000  # of a set are looked at; quantiles of more rows hardly differ
_UNIT_TOLERANCE = 0.1  # of the length of quaternions and (cos, sin) pairs
_RANGE_TOLERANCE = 0.05  # of actions beyond [-1, 1] and rewards beyond [0, 1]
_JOINT_MARGIN = 0.1  # rad beyond what the training data of the same robot visit
_GRAIN = 1e-3  # standard deviations; rows equal to this grain are duplicates


@dataclass(frozen=True)
class Marginals:
    """Each training task's distribution, dimension by dimension: quantiles (T, 100, 164), conditions (T, 16).

    `std` (164,) is that of the whole pool and the unit of distances.
    """

    quantiles: np.ndarray
    conditions: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray, task_index: np.ndarray, conditions: np.ndarray) -> Marginals:
        """From a training pool: matrix (N, 164), task of each row (N,)."""
        quantiles = []
        for task in range(len(conditions)):
            rows = np.flatnonzero(task_index == task)
            rows = rows[:: max(1, len(rows) // _ROWS)]
            quantiles.append(np.quantile(matrix[rows], LEVELS, axis=0))
        std = matrix[:: max(1, len(matrix) // (10 * _ROWS))].std(axis=0) + 1e-3
        return cls(np.array(quantiles, np.float32), np.asarray(conditions, np.float32), std.astype(np.float32))


@dataclass(frozen=True)
class Quality:
    """`distance`: 1-Wasserstein distance in standard deviations, averaged over dimensions, to the nearest training task
    that shares the element of the dimension's factor (for action, reward and terminal: to the nearest of all);
    `worst_factor` has the largest such average, `worst_distance`. None without the training data's marginals.

    Shares of rows: `quaternions` and `angles` off unit length, `joints` beyond where training data of the same robot
    go, `actions` and `rewards` out of range, `violations` any of these; `duplicates` equal to another row.
    """

    rows: int
    distance: float | None
    worst_factor: str | None
    worst_distance: float | None
    quaternions: float
    angles: float
    joints: float
    actions: float
    rewards: float
    violations: float
    duplicates: float

    def rejected(self, config: QualityConfig) -> str | None:
        """Why no policy need try this set; None where one may."""
        for name in ("distance", "violations", "duplicates"):
            value, most = getattr(self, name), getattr(config, f"max_{name}")
            if value is not None and value > most:
                return f"data quality: {name} {value:.3f} above {most}"
        return None

    def __str__(self) -> str:
        far = "" if self.distance is None else f"distance {self.distance:.3f} (most: {self.worst_factor}), "
        return f"{far}violations {self.violations:.1%}, duplicates {self.duplicates:.1%}"


def assess(
    matrix: np.ndarray,
    condition: np.ndarray,
    layout: FactoredLayout,
    marginals: Marginals | None,
    generator: np.random.Generator,
) -> Quality:
    """The quality of generated transitions (N, 164) of the task with `condition` (16,)."""
    if len(matrix) > _ROWS:
        matrix = matrix[np.sort(generator.choice(len(matrix), _ROWS, replace=False))]
    bad = constraint_violations(matrix, condition, layout, marginals)
    std = marginals.std if marginals else matrix.std(axis=0) + 1e-3
    coarse = np.round(matrix / (_GRAIN * std)).astype(np.int64)
    unique = len(np.unique(coarse, axis=0))
    far = factor_distances(matrix, condition, layout, marginals) if marginals else {}
    sizes = {token.name: token.dim for token in layout.tokens}
    worst = max(far, key=lambda name: far[name]) if far else None
    distance = sum(far[name] * sizes[name] for name in far) / layout.transition_dim if far else None
    return Quality(
        rows=len(matrix),
        distance=distance,
        worst_factor=worst,
        worst_distance=far[worst] if worst else None,
        **{name: float(rows.mean()) for name, rows in bad.items()},
        violations=float(np.any(list(bad.values()), axis=0).mean()),
        duplicates=1 - unique / len(matrix),
    )


def factor_distances(
    matrix: np.ndarray, condition: np.ndarray, layout: FactoredLayout, marginals: Marginals
) -> dict[str, float]:
    """Token -> mean distance over its dimensions to the nearest training task that shares its element."""
    own = np.quantile(matrix, LEVELS, axis=0)
    # (T, 164): on the line the 1-Wasserstein distance is the area between the quantile functions.
    distances = np.abs(marginals.quantiles - own).mean(axis=1) / marginals.std
    result = {}
    for token in layout.tokens:
        sharing = np.ones(len(distances), bool)
        if token.axis:
            part = layout.condition_slices[token.axis]
            sharing = (marginals.conditions[:, part] * condition[part]).sum(axis=1) > 0
        if sharing.any():
            result[token.name] = float(distances[sharing][:, token.part].mean(axis=1).min())
    return result


def constraint_violations(
    matrix: np.ndarray, condition: np.ndarray, layout: FactoredLayout, marginals: Marginals | None
) -> dict[str, np.ndarray]:
    """Kind -> rows (N,) bool that cannot be real."""
    none = np.zeros(len(matrix), bool)
    quaternions, angles, joints = none.copy(), none.copy(), none.copy()
    for start in (layout.state.start, layout.next_state.start):
        state = matrix[:, start : start + layout.state_dim]
        for part in layout.quaternions:
            length = np.linalg.norm(state[:, part], axis=1)
            if np.median(length) > 0.5:  # shorter: the task has no such body
                quaternions |= np.abs(length - 1) > _UNIT_TOLERANCE
        for cosines, sines in layout.angles:
            angles |= (np.abs(np.hypot(state[:, cosines], state[:, sines]) - 1) > _UNIT_TOLERANCE).any(axis=1)
            if marginals is not None:
                joints |= _beyond(state, cosines, sines, start, condition, layout, marginals)
    actions = (np.abs(matrix[:, layout.action]) > 1 + _RANGE_TOLERANCE).any(axis=1)
    reward = matrix[:, layout.reward]
    rewards = (reward < -_RANGE_TOLERANCE) | (reward > 1 + _RANGE_TOLERANCE)
    return {"quaternions": quaternions, "angles": angles, "joints": joints, "actions": actions, "rewards": rewards}


def _beyond(
    state: np.ndarray,
    cosines: slice,
    sines: slice,
    start: int,
    condition: np.ndarray,
    layout: FactoredLayout,
    marginals: Marginals,
) -> np.ndarray:
    """Rows (N,) whose cosines or sines lie outside what training tasks with the same robot show, by a margin in rad."""
    axis = next(f.axis for f in layout.factors if layout.factor_slices[f.name].stop >= cosines.stop)
    part = layout.condition_slices[axis]
    sharing = (marginals.conditions[:, part] * condition[part]).sum(axis=1) > 0
    outside = np.zeros(len(state), bool)
    if not sharing.any():
        return outside
    for columns in (cosines, sines):
        seen = marginals.quantiles[sharing][:, :, start + columns.start : start + columns.stop]
        low, high = seen.min(axis=(0, 1)) - _JOINT_MARGIN, seen.max(axis=(0, 1)) + _JOINT_MARGIN
        outside |= ((state[:, columns] < low) | (state[:, columns] > high)).any(axis=1)
    return outside


def save_marginals(path: Path, marginals: Marginals) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(marginals))


def load_marginals(path: Path, layout: FactoredLayout) -> Marginals | None:
    """None where the generator came without. Raises `DataError` for a file that is damaged or of another layout."""
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, dict.fromkeys(("quantiles", "conditions", "std"), NUMBERS))
        tasks = arrays["conditions"].shape[:1]
        shapes = {
            "conditions": (*tasks, layout.condition_dim),
            "quantiles": (*tasks, len(LEVELS), layout.transition_dim),
            "std": (layout.transition_dim,),
        }
        for key, shape in shapes.items():
            check_array(arrays[key], shape, f"{path}: {key}")
    except DataError as error:
        raise DataError(f"{error}; remove it to go on without the quantiles of the training data") from error
    return Marginals(**arrays)
