"""CSV tables and the best data sets of a run, under the published names."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.observer import Observer
from pipeline.loop.plan import generation_stages
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration, LoopState
from pipeline.results.loop_scores import MIDDLE, loop_rows, method_name
from pipeline.results.practice_table import write_practice_table
from pipeline.stages.paths import samples_file
from pipeline.stages.score_table import SCORES_FILE, ScoreRow, by_task, mean_rate, write_score_table
from runtime.atomic import atomic_path, side_file, write_json, write_text
from runtime.config import config_hash
from runtime.errors import StateError
from runtime.intervals import wilson
from runtime.tables import write_csv

if TYPE_CHECKING:
    from diffusion.quality import Quality

log = logging.getLogger(__name__)

_INTERVAL_COLUMNS = ("wilson_low", "wilson_high")
_QUALITY_COLUMNS = ("data_distance", "data_worst_factor", "data_violations", "data_duplicates")


class Tables(Observer):
    """The tables of a run, written as it goes on."""

    def claim(self, run: Run) -> None:
        claim(run)

    def opened(self, run: Run) -> None:
        write_iteration_tables(run)

    def judged(self, run: Run) -> None:
        write_iteration_tables(run)
        write_practice_table(run, run.tables_folder)

    def ended(self, run: Run) -> None:
        write_iteration_tables(run)
        write_final_table(run)
        write_best_datasets(run)


def final_table_file(run: Run) -> Path:
    return run.tables_folder / f"final_test_task_table_iter{_judged(run).next_index - 1}.csv"


def best_folder(run: Run) -> Path:
    name = f"{run.config.run_name}_iters{_judged(run).next_index - 1}"
    return run.paths.results_path / "best_testtask_dataset" / name


def _judged(run: Run) -> LoopState:
    """What the final tables show: where the run has ended, not the iteration that it left open."""
    return run.state.closed() if run.state.outcome else run.state


def claim(run: Run) -> None:
    """Note whose tables these are: their folder is named by the diffusion seed alone.

    Raises `StateError` where the tables of another run, configuration or results folder are there.
    """
    owner = run.tables_folder / "run.txt"
    name = f"{run.config.run_name} {config_hash(run.identity)}"
    if owner.exists():
        written = owner.read_text(encoding="utf-8", errors="replace").strip()
        other, in_, where = written.partition(" in ")
        if in_ and not (other == name and _leads_to(owner.parent, where, run.folder)):
            raise StateError(f"{owner.parent}: holds the tables of another run ({written}); choose another --logs_path")
    write_text(owner, f"{name} in {os.path.relpath(run.folder.resolve(), owner.parent.resolve())}\n")


def _leads_to(start: Path, relative: str, folder: Path) -> bool:
    """Whether a relative path from `start` is a folder, however either of them was reached (symbolic links)."""
    ways = (start.resolve() / relative, Path(os.path.normpath(start / relative)))
    return any(way.resolve() == folder.resolve() for way in ways)


def write_iteration_tables(run: Run) -> None:
    """`scores.csv`, and what follows from it: the published tables of all finished iterations.

    A run that was killed between deciding and writing makes up for it here.
    """
    rows = loop_rows(run, _judged(run).iterations)
    write_score_table(run.tables_folder / SCORES_FILE, rows)
    finished = [it for it in run.state.iterations if it.selection is not None]
    for count in range(1, len(finished) + 1):
        _write_iteration(run, finished[:count], rows)


def _write_iteration(run: Run, iterations: list[Iteration], scores: list[ScoreRow]) -> None:
    """Scores per seed of the last iteration's test and middle tasks, and the test tasks' history up to it."""
    config, iteration = run.config, iterations[-1]
    i, folder = iteration.index, run.tables_folder
    stem = f"{config.policy.algorithm.replace('_', '')}_diffusionseed{config.diffusion_seed}"
    qualities = {stage.task: stage.quality() for stage in generation_stages(run, iteration)}
    test_folder = folder / f"policies_slurm_test_{i}" / "logs"
    held_out = [row for row in scores if row.method == method_name()]
    rows = [row for row in held_out if row.step == i]
    _write_scores(run, test_folder / f"{stem}_diffusiontrainingrun{i}.csv", rows, run.tasks.test, qualities)
    middle = folder / f"policies_slurm_middle_{i}" / "logs" / f"{stem}_diffusiontraining{i}_middle.csv"
    if run.tasks.middle:
        rows = [row for row in scores if row.method == method_name(MIDDLE) and row.step == i]
        _write_scores(run, middle, rows, run.tasks.middle, qualities)
    columns = ["task", *(f"success_rate_iter{it.index}" for it in iterations), "best_success_rate"]
    table = []
    for task in run.tasks.test:
        rates = {it.index: _rate(held_out, task, it.index) for it in iterations}
        row = {f"success_rate_iter{index}": _number(rate) for index, rate in rates.items()}
        best = max((rate for rate in rates.values() if rate is not None), default=None)
        table.append({"task": task.name, **row, "best_success_rate": _number(best)})
    table.sort(key=lambda row: float(row["best_success_rate"] or -1), reverse=True)
    write_csv(test_folder / f"test_tasks_history_iter{i}.csv", columns, table)


def _rate(rows: Iterable[ScoreRow], task: Task, iteration: int) -> Fraction | None:
    """Mean success of a task over seeds; None where it was not tried."""
    found = [row for row in rows if (row.task, row.step) == (task.name, iteration)]
    return mean_rate(found) if found else None


def _write_scores(
    run: Run, path: Path, rows: Sequence[ScoreRow], tasks: tuple[Task, ...], qualities: Mapping[Task, Quality | None]
) -> None:
    """Return and success of every seed, successes as k of n beside the rate; quality of the data they learned from."""
    axes = run.family.table_columns
    columns = [*axes]
    for seed in run.seeds(tasks[0]):
        columns += [f"score_seed{seed}", f"success_seed{seed}", f"solved_seed{seed}"]
    known, table = by_task(rows), []
    for task in tasks:
        scores = known.get(task.name)
        if not scores:
            continue
        cells: dict[str, object] = dict(zip(axes, task.elements, strict=True))
        for seed, score in scores.items():
            cells[f"score_seed{seed}"] = f"{score.mean_return:.3f}"
            cells[f"success_seed{seed}"] = _number(score.rate)
            cells[f"solved_seed{seed}"] = f"{score.solved}/{score.trials}"
        cells["avg_score"] = f"{sum(score.mean_return for score in scores.values()) / len(scores):.3f}"
        cells["avg_success"] = _number(mean_rate(scores.values()))
        cells |= _interval(scores) | _quality(qualities.get(task))
        table.append(cells)
    write_csv(path, [*columns, "avg_score", "avg_success", *_INTERVAL_COLUMNS, *_QUALITY_COLUMNS], table)


def _interval(scores: Mapping[int, ScoreRow]) -> dict[str, str]:
    """Wilson's 95 % interval of the success over the episodes of all seeds."""
    solved, trials = (sum(getattr(score, name) for score in scores.values()) for name in ("solved", "trials"))
    return dict(zip(_INTERVAL_COLUMNS, (f"{bound:.3f}" for bound in wilson(solved, trials)), strict=True))


def _quality(quality: Quality | None) -> dict[str, object]:
    if quality is None:
        return {}
    figures = (quality.distance, quality.worst_factor, quality.violations, quality.duplicates)
    cells = [f"{value:.4f}" if isinstance(value, float) else value for value in figures]
    return dict(zip(_QUALITY_COLUMNS, cells, strict=True))


def final_rows(run: Run) -> list[dict[str, str]]:
    """Held-out tasks with their success per iteration and the best; last the average of the best so far."""
    iterations, tasks = _judged(run).iterations, run.tasks.test
    scores = [row for row in loop_rows(run, iterations) if row.method == method_name()]
    so_far = {task: Fraction(0) for task in tasks}
    cells: dict[Task, dict[str, str]] = {task: {} for task in tasks}
    averages = {}
    for it in iterations:
        for task in tasks:
            rate = _rate(scores, task, it.index)
            cells[task][f"iter_{it.index}"] = _number(rate)
            so_far[task] = max(so_far[task], rate or Fraction(0))
        averages[f"iter_{it.index}"] = _number(sum(so_far.values(), Fraction(0)) / len(so_far)) if so_far else ""
    tried = {row.task for row in scores}
    rows = [
        {"task": task.name, **cells[task], "best_rate": _number(so_far[task] if task.name in tried else None)}
        for task in tasks
    ]
    last = averages[f"iter_{iterations[-1].index}"] if iterations else ""
    return [*rows, {"task": "AVERAGE_BEST_RATE", **averages, "best_rate": last}]


def write_final_table(run: Run) -> None:
    """The table of held-out tasks, as a CSV file and in the log."""
    iterations = _judged(run).iterations
    columns = ["task", *(f"iter_{it.index}" for it in iterations), "best_rate"]
    rows = final_rows(run)
    write_csv(final_table_file(run), columns, rows)
    log.info("held-out tasks, success per iteration (%s):", run.state.outcome)
    for line in text_table(columns, rows):
        log.info("  %s", line)


def text_table(columns: list[str], rows: list[dict[str, str]]) -> list[str]:
    """Lines of an aligned table; an iteration in which a task was not tried shows a dash."""
    cells = [columns, *([row.get(column) or "-" for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]


def write_best_datasets(run: Run) -> None:
    """Each held-out task's set of the iteration with the highest rate, by hard link where the file system can."""
    config, state, folder = run.config, _judged(run), best_folder(run)
    best_iterations, failed = {}, []
    for task in run.tasks.test:
        best = state.best(task)
        if best is None:
            failed.append(f"{task.name}: no iteration has a score")
            continue
        source = samples_file(run.paths.results_path, best[1], config.model_name(best[1]), task)
        target = folder / task.name / source.name
        if not source.exists() and not target.exists():
            failed.append(f"{task.name}: {source} is gone")
            continue
        if source.exists():
            _link(source, target)
            _link(side_file(source), side_file(target))
        best_iterations[task.name] = best[1]
    summary = {
        "dataset_name": folder.name,
        "total_test_tasks": len(run.tasks.test),
        "successfully_copied": len(best_iterations),
        "failed_tasks": failed,
        "best_iterations": best_iterations,
        "best_rates": {task.name: _number(best[0]) for task in run.tasks.test if (best := state.best(task))},
        "config": {
            "denoiser": config.denoiser,
            "task_list_seed": config.task_list_seed,
            "num_train": config.num_train,
            "diffusion_seed": config.diffusion_seed,
            "success_threshold": config.success_threshold,
            "final_threshold": float(state.threshold.value),
        },
    }
    write_json(folder / "best_dataset_summary.json", summary)
    log.info("best sets of the held-out tasks: %s", folder)


def _link(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def _number(rate: Fraction | None) -> str:
    return "" if rate is None else f"{float(rate):.4f}".rstrip("0").rstrip(".")
