"""What practice came to: success of the generated set alone and of the practised one, side by side, never mixed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.plan import practice_stages
from pipeline.loop.run import Run
from pipeline.loop.selection import Score
from pipeline.loop.state import Iteration
from runtime.atomic import artifact_info
from runtime.intervals import wilson
from runtime.tables import write_csv

COLUMNS = (
    "task",
    "kind",
    "iteration",
    "generated_solved",
    "practised_solved",
    "wilson_low",
    "wilson_high",
    "control_steps",
    "rounds",
    "round_kept",
    "rows_generated",
    "rows_labelled",
    "rows_practised",
)


def practice_rows(run: Run) -> list[dict[str, Any]]:
    """A row for each task and iteration in which a practised set was tried; success as k/n over all seeds."""
    return [_row(run, it, task) for it in run.state.iterations for task in it.targets if it.practised.get(task)]


def _row(run: Run, iteration: Iteration, task: Task) -> dict[str, Any]:
    solved, trials = _counts(iteration.practised[task])
    low, high = wilson(solved, trials)
    (stage,) = practice_stages(run, iteration, [task])
    practice = (artifact_info(stage.output) or {}).get("practice", {})
    made = practice.get("rows", {})
    strict = iteration.scores.get(task)
    return {
        "task": task.name,
        "kind": "held out" if task in run.tasks.test else "middle",
        "iteration": iteration.index,
        "generated_solved": "/".join(map(str, _counts(strict))) if strict else "",
        "practised_solved": f"{solved}/{trials}",
        "wilson_low": f"{low:.3f}",
        "wilson_high": f"{high:.3f}",
        "control_steps": practice.get("control_steps", ""),
        "rounds": len(practice.get("rounds", [])),
        "round_kept": practice.get("round", ""),
        **{f"rows_{origin}": made.get(origin, "") for origin in ("generated", "labelled", "practised")},
    }


def _counts(scores: Mapping[int, Score]) -> tuple[int, int]:
    return sum(score.solved for score in scores.values()), sum(score.trials for score in scores.values())


def write_practice_table(run: Run, folder: Path) -> None:
    """`practice.csv` in the folder, where something was practised."""
    rows = practice_rows(run)
    if rows:
        write_csv(folder / "practice.csv", list(COLUMNS), rows)
