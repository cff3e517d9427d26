"""The published tables of a multitask baseline over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stages.multitask import LAST, TRAINED
from pipeline.stages.score_table import ScoreRow, by_task, mean_rate
from runtime.tables import write_csv


def write_baseline_tables(rows: Sequence[ScoreRow], folder: Path) -> None:
    """`<folder>_results.csv` of held-out tasks (best-score checkpoint of each seed), and two others beside it.

    `.._last_checkpoint.csv` has the last checkpoint's results, `.._train_tasks.csv` those of the training tasks.
    """
    stem = f"{folder.name}_results"
    kinds = {"": f"{stem}.csv", LAST: f"{stem}_last_checkpoint.csv", TRAINED: f"{stem}_train_tasks.csv"}
    for word, file in kinds.items():
        _write(folder / file, [row for row in rows if _word(row) == word])


def _word(row: ScoreRow) -> str:
    """What stands behind the algorithm in a row's method."""
    return row.method.partition(" ")[2]


def _write(path: Path, rows: Sequence[ScoreRow]) -> None:
    tasks, seeds = by_task(rows), list(dict.fromkeys(row.seed for row in rows))
    columns = ["task"]
    for seed in seeds:
        columns += [f"score_seed{seed}", f"success_seed{seed}", f"solved_seed{seed}"]
    columns += ["avg_score", "avg_success"]
    table: list[dict[str, Any]] = []
    for task, of_seed in tasks.items():
        cells: dict[str, Any] = {"task": task}
        for seed, row in of_seed.items():
            cells[f"score_seed{seed}"] = f"{row.mean_return:.3f}"
            cells[f"success_seed{seed}"] = f"{float(row.rate):.4f}"
            cells[f"solved_seed{seed}"] = f"{row.solved}/{row.trials}"
        cells["avg_score"] = f"{np.mean([row.mean_return for row in of_seed.values()]):.3f}"
        cells["avg_success"] = f"{float(mean_rate(of_seed.values())):.4f}"
        table.append(cells)
    if table:
        overall: dict[str, Any] = {"task": "OVERALL_AVERAGE"}
        for column in columns[1:]:
            if not column.startswith("solved"):
                overall[column] = f"{np.mean([float(cells[column]) for cells in table if column in cells]):.4f}"
        table.append(overall)
    write_csv(path, columns, table)
