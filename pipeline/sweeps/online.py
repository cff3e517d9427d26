"""The table of a sweep of online runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.results.curves import first_solved
from pipeline.stages.score_table import ScoreRow
from runtime.tables import write_csv

RESULTS_FILE = "results.csv"


def write_online_table(rows: Sequence[ScoreRow], folder: Path) -> None:
    """`results.csv`: a row per task, last the averages.

    `success` and `score` are those of the last evaluation, `best_success` is the best one's; `steps_to_solve` is the
    step of the first evaluation with a success of 0.8 or more, empty where there is none.
    """
    runs: dict[tuple[str, int], list[ScoreRow]] = {}
    for row in rows:
        runs.setdefault((row.task, row.seed), []).append(row)
    seeds = sorted({row.seed for row in rows})
    quantities = ("score", "success", "best_success", "steps_to_solve")
    columns = ["task", *(f"{name}_seed{seed}" for seed in seeds for name in quantities)]
    averages = [f"avg_{name}" for name in quantities[:3]]
    table: list[dict[str, Any]] = []
    for task in dict.fromkeys(row.task for row in rows):
        cells: dict[str, Any] = {"task": task}
        figures: dict[str, list[float]] = {name: [] for name in quantities[:3]}
        for seed in seeds:
            history = runs.get((task, seed))
            if not history:
                continue
            last, best = history[-1], max(row.rate for row in history)
            values = (last.mean_return, float(last.rate), float(best))
            for name, value in zip(quantities, values, strict=False):
                cells[f"{name}_seed{seed}"] = f"{value:.4g}"
                figures[name].append(value)
            solved = first_solved({row.step: float(row.rate) for row in history})
            cells[f"steps_to_solve_seed{seed}"] = "" if solved is None else solved
        cells |= {f"avg_{name}": f"{np.mean(values):.4f}" for name, values in figures.items()}
        table.append(cells)
    if table:
        overall = {name: f"{np.mean([float(cells[name]) for cells in table]):.4f}" for name in averages}
        table.append({"task": "OVERALL_AVERAGE", **overall})
    write_csv(folder / RESULTS_FILE, [*columns, *averages], table)
