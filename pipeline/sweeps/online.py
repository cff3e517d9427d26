"""Online runs over tasks x seeds as jobs, and their tables, which are rewritten whenever a run ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corl.online import HISTORY_COLUMNS, read_history
from pipeline.jobs.queue import run_batch
from pipeline.loop.config import ClusterConfig, Resources, RetryConfig
from pipeline.results.solving import first_solved
from pipeline.stages.online import LearnOnline
from pipeline.sweeps.ownership import owned
from runtime.errors import JobError
from runtime.metrics import write_csv

log = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"
HISTORIES_FILE = "eval_history.csv"


def run_sweep(
    stages: Sequence[LearnOnline],
    resources: Resources,
    cluster: ClusterConfig,
    retry: RetryConfig,
    *,
    logs: Path,
    folder: Path,
    identity: Mapping[str, Any],
) -> None:
    """Run all stages as jobs; the tables in `folder` hold what there is so far. `identity` is what all have in common.

    Raises `JobError` where runs failed for good, after the others have ended; `StateError` where the folder is another
    sweep's.
    """

    def on_done(stage: LearnOnline) -> str:
        write_tables(stages, folder)
        scores = stage.scores()
        return f"{scores.last_solved}/{scores.episodes} solved, best {scores.best_solved}/{scores.episodes}"

    with owned(folder, identity, [stage.name for stage in stages]):
        failed = run_batch(stages, resources, cluster, retry, on_done, name=folder.name, folder=folder, logs=logs)
        write_tables(stages, folder)
    log.info("tables: %s", folder)
    if failed:
        name, reason = next(iter(failed.items()))
        raise JobError(f"{len(failed)} of {len(stages)} runs failed for good; {name}: {reason}")


def write_tables(stages: Sequence[LearnOnline], folder: Path) -> None:
    """`results.csv`: a row per task, last the averages. `eval_history.csv`: every evaluation of every run.

    `success` and `score` are those of the last evaluation, `best_success` is the best one's; `steps_to_solve` is the
    step of the first evaluation with a success of 0.8 or more, empty where there is none.
    """
    histories = {(stage.task.name, stage.seed): read_history(stage.folder) for stage in stages}
    rows = [
        {"task": task, "seed": seed, **{name: _plain(row[name]) for name in HISTORY_COLUMNS}}
        for (task, seed), history in histories.items()
        for row in history
    ]
    write_csv(folder / HISTORIES_FILE, ["task", "seed", *HISTORY_COLUMNS], rows)
    seeds = sorted({stage.seed for stage in stages})
    quantities = ("score", "success", "best_success", "steps_to_solve")
    columns = ["task", *(f"{name}_seed{seed}" for seed in seeds for name in quantities)]
    averages = [f"avg_{name}" for name in quantities[:3]]
    table: list[dict[str, Any]] = []
    for task in dict.fromkeys(stage.task.name for stage in stages):
        row: dict[str, Any] = {"task": task}
        figures: dict[str, list[float]] = {name: [] for name in quantities[:3]}
        for seed in seeds:
            history = histories.get((task, seed))
            if not history:
                continue
            last = history[-1]
            values = (last["episodic_return"], last["success_rate"], last["best_success_rate"])
            for name, value in zip(quantities, values, strict=False):
                row[f"{name}_seed{seed}"] = f"{value:.4g}"
                figures[name].append(value)
            solved = steps_to_solve(history)
            row[f"steps_to_solve_seed{seed}"] = "" if solved is None else solved
        row |= {f"avg_{name}": f"{np.mean(values):.4f}" for name, values in figures.items() if values}
        table.append(row)
    known = [row for row in table if averages[0] in row]
    if known:
        overall = {name: f"{np.mean([float(row[name]) for row in known]):.4f}" for name in averages}
        table.append({"task": "OVERALL_AVERAGE", **overall})
    write_csv(folder / RESULTS_FILE, [*columns, *averages], table)


def steps_to_solve(history: Sequence[dict[str, float]]) -> int | None:
    """The step of the first evaluation with a success of 0.8; None where there is none."""
    return first_solved({int(row["global_step"]): row["success_rate"] for row in history})


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
