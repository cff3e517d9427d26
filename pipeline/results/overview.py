"""What a run's page and figures show, read from its state and files: numbers alone, nothing is drawn here."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from offline_compositional_rl_datasets.hdf5 import task_file
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.usage import notes_of, of_stage, used
from pipeline.loop.plan import (
    generation_stages,
    generator_stage,
    policy_stages,
    practice_stages,
    practised_policy_stages,
)
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from pipeline.results import tables
from pipeline.results.physics_summary import PhysicsSummary
from pipeline.stages.paths import PHYSICS_FILE, policy_folder
from pipeline.stages.policy import TrainPolicy
from runtime.atomic import is_complete
from runtime.logs import duration
from runtime.metrics import read_metrics
from runtime.records import read_optional

if TYPE_CHECKING:
    from diffusion.quality import Quality

STAGES = {
    "diffusion": "train the generator",
    "generation": "generate",
    "policy": "train and test policies",
    "practice": "practise",
    "practised_policy": "test practised sets",
}
"""Stage of an iteration -> what it does, in their order; the last two where practice is asked for."""

_SHOWN_JOBS = 6


@dataclass(frozen=True)
class Cell:
    """A task: `kind` is train, middle or held out; per iteration its success and the counts (None: not tried)."""

    task: Task
    kind: str
    rates: tuple[float | None, ...] = ()
    counts: tuple[str, ...] = ()
    accepted: int | None = None
    practised: bool = False  # and accepted with its practised set

    @property
    def best(self) -> float | None:
        return max((rate for rate in self.rates if rate is not None), default=None)

    def at(self, iteration: int | None) -> float | None:
        """Success in an iteration; None stands for the best of all."""
        return self.best if iteration is None else self.rates[iteration]


@dataclass(frozen=True)
class Block:
    """The tasks with these `elements` of the further axes.

    `rows[row][column]` is None where the split has no such task.
    """

    elements: tuple[str, ...]
    rows: tuple[tuple[Cell | None, ...], ...]


@dataclass(frozen=True)
class Grid:
    """The tasks by the family's `grid_axes`: elements of rows and columns that the split has, a block per others.

    `across` blocks stand side by side: those that differ in the third axis.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    across: int
    blocks: tuple[Block, ...]


def cells(run: Run) -> dict[Task, Cell]:
    """All tasks of the split: train, held out, middle."""
    accepted = run.state.accepted_in()
    found = {task: Cell(task, "train") for task in run.tasks.train}
    for task in run.tasks.generated:
        rates, counts = [], []
        for it in run.state.iterations:
            rate, scores = it.rate(task), it.scores.get(task, {}).values()
            rates.append(None if rate is None else float(rate))
            counts.append(f"{sum(s.solved for s in scores)}/{sum(s.trials for s in scores)}" if scores else "")
        kind = "held out" if task in run.tasks.test else "middle"
        practised = task in accepted and task in run.state.iterations[accepted[task]].selection.practised
        found[task] = Cell(task, kind, tuple(rates), tuple(counts), accepted.get(task), practised)
    return found


def grid(run: Run) -> Grid:
    axes, elements, known = run.family.grid_axes, dict(run.family.layout.axes), cells(run)
    lacking = 2 - len(axes)
    at = {(*(getattr(task, axis) for axis in axes), *[""] * lacking): cell for task, cell in known.items()}
    shown = [tuple(e for e in elements[axis] if any(getattr(t, axis) == e for t in known)) for axis in axes]
    rows, columns, *others = (*shown, *[("",)] * lacking)
    blocks = tuple(
        Block(chosen, tuple(tuple(at.get((row, column, *reversed(chosen))) for column in columns) for row in rows))
        for chosen in itertools.product(*reversed(others))
    )
    return Grid(rows, columns, len(others[0]) if others else 1, blocks)


def now(run: Run) -> list[str]:
    """What is being done, by the files that are there: first in a sentence, then the jobs that are under way."""
    iteration = run.state.current
    if run.state.outcome:
        return []
    if iteration is None:
        return [] if run.state.iterations else _recorded(run)
    stages = run.config.stages
    stage = next((name for name in stages if name not in iteration.seconds), stages[-1])
    head = f"Iteration {iteration.index}: {STAGES[stage]}"
    if stage == "diffusion":
        return [f"{head}: {generator_stage(run, iteration).progress().text}"]
    if stage == "generation":
        stages = generation_stages(run, iteration)
        done = sum(is_complete(each.output) for each in stages)
        return [f"{head}: {done} of {len(stages)} sets done"]
    if stage == "practice":
        stages = practice_stages(run, iteration)
        done = sum(is_complete(each.output) for each in stages)
        return [f"{head}: {done} of {len(stages)} tasks done"]
    scores = iteration.scores
    members = policies(run, iteration)
    if stage == "practised_policy":
        scores = iteration.practised
        members = [member for each in practised_policy_stages(run, iteration) for member in each.members]
    open_ = [m for m in members if m.seed not in scores.get(m.task, {})]
    running = [(m, m.progress()) for m in open_ if (m.folder / "metrics.jsonl").exists()]
    jobs = [f"{m.task} seed {m.seed}: {progress.text}" for m, progress in running]
    more = [f"and {len(jobs) - _SHOWN_JOBS} more"] if len(jobs) > _SHOWN_JOBS else []
    return [f"{head}: {len(members) - len(open_)} of {len(members)} scored", *jobs[:_SHOWN_JOBS], *more]


def _recorded(run: Run) -> list[str]:
    """How much of the expert data there is, while the loop records them before its first iteration."""
    if run.config.collect is None:
        return []
    tasks, root, kind = run.tasks.train, run.paths.data_path, run.config.dataset_type
    done = sum(is_complete(task_file(root, kind, task)) for task in tasks)
    return [f"Expert data: {done} of {len(tasks)} tasks recorded"]


def policies(run: Run, iteration: Iteration) -> list[TrainPolicy]:
    """Every pair of task and seed of an iteration, however they are grouped into jobs."""
    return [member for stage in policy_stages(run, iteration) for member in stage.members]


def history(run: Run) -> list[dict[str, Any]]:
    """One row per iteration: pool, curriculum, threshold, verdicts, time."""
    rows = []
    for it in run.state.iterations:
        selection = it.selection
        rows.append(
            {
                "index": it.index,
                "targets": len(it.targets),
                "sources": sum(len(tasks) for tasks in it.sources.values()),
                "phase": it.phase or "all sources",
                "threshold": float(selection.threshold.value if selection else run.state.threshold.value),
                "reduced_from": None if selection is None or selection.reduced_from is None
                else float(selection.reduced_from),
                "good": len(selection.good) if selection else None,
                "failed": [task.name for task in it.failed],
                "seconds": dict(it.seconds),
                "durations": {stage: duration(seconds) for stage, seconds in it.seconds.items()},
            }
        )  # fmt: skip
    return rows


def stage_rows(run: Run) -> list[dict[str, Any]]:
    """Per stage: wall time of all iterations, jobs, what each job asks for and what the largest and longest used."""
    iterations, notes = run.state.iterations, notes_of(run.jobs_folder, run.config.run_name, run.folder)
    total = sum(sum(it.seconds.values()) for it in iterations)
    jobs = {
        "diffusion": len(iterations),
        "generation": sum(len(it.targets) for it in iterations),
        "policy": sum(len(policy_stages(run, it)) for it in iterations),
        "practice": sum(len(practice_stages(run, it)) for it in iterations),
        "practised_policy": sum(len(practised_policy_stages(run, it)) for it in iterations),
    }
    rows = []
    for stage in run.config.stages:
        what, asked = STAGES[stage], run.config.resources.of(stage)
        seconds = sum(it.seconds.get(stage, 0.0) for it in iterations)
        most = used(of_stage(notes, stage))
        rows.append(
            {
                "stage": what,
                "jobs": jobs[stage],
                "time": duration(seconds),
                "share": seconds / total if total else 0.0,
                "cpus": asked.cpus or "all",
                "gpus": asked.gpus,
                "memory": f"{asked.memory_gb} GB",
                "peak": "–" if most.memory_gb is None else f"{most.memory_gb:.2f} GB",
                "accounted": most.accounted,
                "limit": duration(3600 * asked.hours),
                "longest": "–" if most.hours is None else duration(3600 * most.hours),
            }
        )
    return rows


@dataclass(frozen=True)
class GeneratedSet:
    """What is known of a generated set: quality and physics where they were assessed, success of its policies."""

    iteration: int
    task: Task
    kind: str
    quality: Quality | None
    physics: PhysicsSummary | None
    rate: float | None


def generated_sets(run: Run) -> list[GeneratedSet]:
    """The sets of all iterations of which quality or physics is known."""
    found = []
    for it in run.state.iterations:
        for stage in generation_stages(run, it):
            physics = read_optional(PhysicsSummary, stage.output.with_name(PHYSICS_FILE))
            quality, rate = stage.quality(), it.rate(stage.task)
            if quality is not None or physics is not None:
                kind = "held out" if stage.task in run.tasks.test else "middle"
                rate = None if rate is None else float(rate)
                found.append(GeneratedSet(it.index, stage.task, kind, quality, physics, rate))
    return found


def loss_curves(run: Run) -> dict[int, list[tuple[int, float]]]:
    """Iteration -> (step, denoising loss) while its generator trained."""
    curves = {}
    for it in run.state.iterations:
        rows = read_metrics(generator_stage(run, it).checkpoint.parent / "metrics.jsonl", "loss")
        points = [(row["step"], row["loss"]) for row in rows]
        if points:
            curves[it.index] = points
    return curves


def policy_curves(run: Run) -> Iterator[tuple[Task, int, list[dict[str, Any]]]]:
    """Held-out task, seed and rows (step, success_rate, mean_return) of its policies in the task's best iteration."""
    for task in run.tasks.test:
        best = run.state.best(task)
        if best is None:
            continue
        for seed in sorted(run.state.iterations[best[1]].scores[task]):
            model = run.config.model_name(best[1])
            folder = policy_folder(run.paths.results_path, best[1], model, task, seed)
            rows = read_metrics(folder / "metrics.jsonl", "success_rate", "mean_return")
            if rows:
                yield task, seed, rows


def links(run: Run) -> list[tuple[str, str]]:
    """(name, address relative to the page) of the files that are there."""
    state = run.state
    found = [("state", run.state_file), ("configuration", run.folder / "config.json")]
    if state.iterations:
        found += [
            ("table of held-out tasks", tables.final_table_file(run)),
            ("table of practice", run.tables_folder / "practice.csv"),
            ("tables per iteration", run.tables_folder),
            ("best generated sets", tables.best_folder(run)),
            ("logs of the jobs", run.jobs_folder),
        ]
    for it in state.iterations:
        found.append((f"generator and sets of iteration {it.index}", generator_stage(run, it).checkpoint.parent))
        folder = run.paths.results_path / f"augmented_{it.index}" / "policies" / run.config.model_name(it.index)
        found.append((f"policies of iteration {it.index}", folder))
    return [(name, _address(path, run.folder)) for name, path in found if path.exists()]


def _address(path: Path, folder: Path) -> str:
    """The percent-encoded address of a file from a page in `folder`: what is a space or # in a path is none in it."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
