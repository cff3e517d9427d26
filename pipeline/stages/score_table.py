"""The one table that every method writes: a row per task, method, seed and step, long and without averages."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from runtime.errors import DataError
from runtime.tables import write_csv

SCORES_FILE = "scores.csv"
LOOP = "loop"
"""The method of the loop on held-out tasks. Its steps are iterations, of which the best one counts."""
COLUMNS = ("task", "method", "seed", "step", "solved", "trials", "return")


@dataclass(frozen=True)
class ScoreRow:
    """`solved` of `trials` episodes with their mean return.

    `step` is the method's own: iteration of the loop, gradient step offline, step of the environment online. What a
    method has beside its result on held-out tasks has the method's name and a word more (`loop practised`).
    """

    task: str
    method: str
    seed: int
    step: int
    solved: int
    trials: int
    mean_return: float

    def __post_init__(self) -> None:
        if not 0 <= self.solved <= self.trials or self.trials < 1:
            raise DataError(f"{self.solved} of {self.trials} episodes solved, expected 0 to all of 1 or more")

    @property
    def rate(self) -> Fraction:
        return Fraction(self.solved, self.trials)


def write_score_table(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write `scores.csv`; numbers are exact."""
    cells = [
        (row.task, row.method, row.seed, row.step, row.solved, row.trials, repr(float(row.mean_return))) for row in rows
    ]
    write_csv(path, COLUMNS, (dict(zip(COLUMNS, values, strict=True)) for values in cells))


def read_score_table(path: Path) -> list[ScoreRow]:
    """Raises `DataError` naming file and row where it is no such table, or has a task, method, seed and step twice."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, cells = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of scores ({error})") from error
    if columns != COLUMNS:
        raise DataError(f"{path}: has the columns {', '.join(columns)}, expected {', '.join(COLUMNS)}")
    rows: list[ScoreRow] = []
    seen: set[tuple[str, str, int, int]] = set()
    for number, values in enumerate(cells, 2):
        try:
            seed, step, solved, trials = (int(values[name]) for name in COLUMNS[2:6])
            row = ScoreRow(values["task"], values["method"], seed, step, solved, trials, float(values["return"]))
        except (TypeError, ValueError, DataError) as error:
            raise DataError(f"{path}: line {number}: {error}") from error
        key = (row.task, row.method, row.seed, row.step)
        if key in seen:
            raise DataError(
                f"{path}: line {number}: {row.method} on {row.task}, seed {row.seed}, step {row.step} again"
            )
        seen.add(key)
        rows.append(row)
    return rows


def by_task(rows: Iterable[ScoreRow]) -> dict[str, dict[int, ScoreRow]]:
    """Task -> seed -> row, of rows with one step per task and seed."""
    found: dict[str, dict[int, ScoreRow]] = {}
    for row in rows:
        found.setdefault(row.task, {})[row.seed] = row
    return found


def best_step(rows: Sequence[ScoreRow]) -> int:
    """The step with the highest mean success over seeds; of equal ones the first."""
    steps = sorted({row.step for row in rows})
    return max(steps, key=lambda step: (mean_rate(row for row in rows if row.step == step), -step))


def mean_rate(rows: Iterable[ScoreRow]) -> Fraction:
    """Mean success over seeds."""
    rates = [row.rate for row in rows]
    return sum(rates, Fraction(0)) / len(rates)
