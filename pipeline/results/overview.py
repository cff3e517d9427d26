"""What a run's page and figures show, read from its state and files: numbers alone, nothing is drawn here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from offline_compositional_rl_datasets.hdf5 import task_file
from offline_compositional_rl_datasets.task import AXES, Task
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.state import Iteration, load_state
from pipeline.results import tables
from pipeline.results.physics_summary import PhysicsSummary
from pipeline.results.usage import notes_of, of_stage, used
from pipeline.stages.paths import PHYSICS_FILE, policy_folder
from pipeline.stages.policy import TrainPolicy
from runtime.atomic import is_complete
from runtime.errors import DataError
from runtime.logs import duration
from runtime.metrics import read_metrics
from runtime.records import read_optional

if TYPE_CHECKING:
    from diffusion.quality import Quality
    from pipeline.loop.runner import Loop

STAGES = {
    "diffusion": "train the generator",
    "generation": "generate",
    "policy": "train and test policies",
    "practice": "practise",
    "practised_policy": "test practised sets",
}
"""Stage of an iteration -> what it does, in their order; the last two where practice is asked for."""

_SHOWN_JOBS = 6
_GRID_AXES = ("object", "obstacle", "objective", "robot")


def open_run(folder: Path, *, data_path: Path | None = None, logs_path: Path | None = None) -> Loop:
    """The loop of a run's folder `<results>/loops/<run>`, to be read; nothing is run or written.

    Paths that are not given are the recorded ones. Raises `DataError` where it is not the folder of a run.
    """
    from pipeline.loop.runner import Loop

    folder = Path(folder).absolute()
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: not the folder of a run (no config.json); expected <results>/loops/<run>")
    paths = {"results_path": folder.parent.parent, "data_path": data_path, "logs_path": logs_path}
    loop = Loop(load_pipeline_config(folder / "config.json", {"paths": paths}))
    if loop.state_file.exists():
        loop.state = load_state(loop.state_file)
    return loop


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
    """One objective of one robot: `rows[object][obstacle]`, None where the split has no such task."""

    robot: str
    objective: str
    rows: tuple[tuple[Cell | None, ...], ...]


@dataclass(frozen=True)
class Grid:
    """The object x obstacle x objective grid of every robot: the elements that the split has, a block per objective."""

    objects: tuple[str, ...]
    obstacles: tuple[str, ...]
    objectives: tuple[str, ...]
    robots: tuple[str, ...]
    blocks: tuple[Block, ...]


def cells(loop: Loop) -> dict[Task, Cell]:
    """All tasks of the split: train, held out, middle."""
    accepted = loop.state.accepted_in()
    found = {task: Cell(task, "train") for task in loop.tasks.train}
    for task in loop.tasks.generated:
        rates, counts = [], []
        for it in loop.state.iterations:
            rate, scores = it.rate(task), it.scores.get(task, {}).values()
            rates.append(None if rate is None else float(rate))
            counts.append(f"{sum(s.solved for s in scores)}/{sum(s.trials for s in scores)}" if scores else "")
        kind = "held out" if task in loop.tasks.test else "middle"
        practised = task in accepted and task in loop.state.iterations[accepted[task]].selection.practised
        found[task] = Cell(task, kind, tuple(rates), tuple(counts), accepted.get(task), practised)
    return found


def grid(loop: Loop) -> Grid:
    known = cells(loop)
    axes = [tuple(e for e in AXES[axis] if any(getattr(t, axis) == e for t in known)) for axis in _GRID_AXES]
    objects, obstacles, objectives, robots = axes
    blocks = tuple(
        Block(
            robot, objective, tuple(tuple(known.get(Task(robot, o, b, objective)) for b in obstacles) for o in objects)
        )
        for robot in robots
        for objective in objectives
    )
    return Grid(objects, obstacles, objectives, robots, blocks)


def now(loop: Loop) -> list[str]:
    """What is being done, by the files that are there: first in a sentence, then the jobs that are under way."""
    iteration = loop.state.current
    if loop.state.outcome:
        return []
    if iteration is None:
        return [] if loop.state.iterations else _recorded(loop)
    stages = loop.config.stages
    stage = next((name for name in stages if name not in iteration.seconds), stages[-1])
    head = f"Iteration {iteration.index}: {STAGES[stage]}"
    if stage == "diffusion":
        return [f"{head}: {loop.generator_stage(iteration).progress().text}"]
    if stage == "generation":
        stages = loop.generation_stages(iteration)
        done = sum(is_complete(each.output) for each in stages)
        return [f"{head}: {done} of {len(stages)} sets done"]
    if stage == "practice":
        stages = loop.practice_stages(iteration)
        done = sum(is_complete(each.output) for each in stages)
        return [f"{head}: {done} of {len(stages)} tasks done"]
    scores = iteration.scores
    members = policies(loop, iteration)
    if stage == "practised_policy":
        scores = iteration.practised
        members = [member for each in loop.practised_policy_stages(iteration) for member in each.members]
    open_ = [m for m in members if m.seed not in scores.get(m.task, {})]
    running = [(m, m.progress()) for m in open_ if (m.folder / "metrics.jsonl").exists()]
    jobs = [f"{m.task} seed {m.seed}: {progress.text}" for m, progress in running]
    more = [f"and {len(jobs) - _SHOWN_JOBS} more"] if len(jobs) > _SHOWN_JOBS else []
    return [f"{head}: {len(members) - len(open_)} of {len(members)} scored", *jobs[:_SHOWN_JOBS], *more]


def _recorded(loop: Loop) -> list[str]:
    """How much of the expert data there is, while the loop records them before its first iteration."""
    if loop.config.collect is None:
        return []
    tasks, root, kind = loop.tasks.train, loop.paths.data_path, loop.config.dataset_type
    done = sum(is_complete(task_file(root, kind, task)) for task in tasks)
    return [f"Expert data: {done} of {len(tasks)} tasks recorded"]


def policies(loop: Loop, iteration: Iteration) -> list[TrainPolicy]:
    """Every pair of task and seed of an iteration, however they are grouped into jobs."""
    return [member for stage in loop.policy_stages(iteration) for member in stage.members]


def history(loop: Loop) -> list[dict[str, Any]]:
    """One row per iteration: pool, curriculum, threshold, verdicts, time."""
    rows = []
    for it in loop.state.iterations:
        selection = it.selection
        rows.append(
            {
                "index": it.index,
                "targets": len(it.targets),
                "sources": sum(len(tasks) for tasks in it.sources.values()),
                "phase": it.phase or "all sources",
                "threshold": float(selection.threshold.value if selection else loop.state.threshold.value),
                "reduced_from": None if selection is None or selection.reduced_from is None
                else float(selection.reduced_from),
                "good": len(selection.good) if selection else None,
                "failed": [task.name for task in it.failed],
                "seconds": dict(it.seconds),
                "durations": {stage: duration(seconds) for stage, seconds in it.seconds.items()},
            }
        )  # fmt: skip
    return rows


def stage_rows(loop: Loop) -> list[dict[str, Any]]:
    """Per stage: wall time of all iterations, jobs, what each job asks for and what the largest and longest used."""
    iterations, notes = loop.state.iterations, notes_of(loop)
    total = sum(sum(it.seconds.values()) for it in iterations)
    jobs = {
        "diffusion": len(iterations),
        "generation": sum(len(it.targets) for it in iterations),
        "policy": sum(len(loop.policy_stages(it)) for it in iterations),
        "practice": sum(len(loop.practice_stages(it)) for it in iterations),
        "practised_policy": sum(len(loop.practised_policy_stages(it)) for it in iterations),
    }
    rows = []
    for stage in loop.config.stages:
        what, asked = STAGES[stage], loop.config.resources.of(stage)
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


def generated_sets(loop: Loop) -> list[GeneratedSet]:
    """The sets of all iterations of which quality or physics is known."""
    found = []
    for it in loop.state.iterations:
        for stage in loop.generation_stages(it):
            physics = read_optional(PhysicsSummary, stage.output.with_name(PHYSICS_FILE))
            quality, rate = stage.quality(), it.rate(stage.task)
            if quality is not None or physics is not None:
                kind = "held out" if stage.task in loop.tasks.test else "middle"
                rate = None if rate is None else float(rate)
                found.append(GeneratedSet(it.index, stage.task, kind, quality, physics, rate))
    return found


def loss_curves(loop: Loop) -> dict[int, list[tuple[int, float]]]:
    """Iteration -> (step, denoising loss) while its generator trained."""
    curves = {}
    for it in loop.state.iterations:
        rows = read_metrics(loop.generator_stage(it).checkpoint.parent / "metrics.jsonl", "loss")
        points = [(row["step"], row["loss"]) for row in rows]
        if points:
            curves[it.index] = points
    return curves


def policy_curves(loop: Loop) -> Iterator[tuple[Task, int, list[dict[str, Any]]]]:
    """Held-out task, seed and rows (step, success_rate, mean_return) of its policies in the task's best iteration."""
    for task in loop.tasks.test:
        best = loop.state.best(task)
        if best is None:
            continue
        for seed in sorted(loop.state.iterations[best[1]].scores[task]):
            model = loop.config.model_name(best[1])
            folder = policy_folder(loop.paths.results_path, best[1], model, task, seed)
            rows = read_metrics(folder / "metrics.jsonl", "success_rate", "mean_return")
            if rows:
                yield task, seed, rows


def links(loop: Loop) -> list[tuple[str, str]]:
    """(name, address relative to the page) of the files that are there."""
    state = loop.state
    found = [("state", loop.state_file), ("configuration", loop.folder / "config.json")]
    if state.iterations:
        found += [
            ("table of held-out tasks", tables.final_table_file(loop)),
            ("table of practice", tables.policies_folder(loop) / "practice.csv"),
            ("tables per iteration", tables.policies_folder(loop)),
            ("best generated sets", tables.best_folder(loop)),
            ("logs of the jobs", loop.paths.logs_path / "slurm"),
        ]
    for it in state.iterations:
        found.append((f"generator and sets of iteration {it.index}", loop.generator_stage(it).checkpoint.parent))
        folder = loop.paths.results_path / f"augmented_{it.index}" / "policies" / loop.config.model_name(it.index)
        found.append((f"policies of iteration {it.index}", folder))
    return [(name, _address(path, loop.folder)) for name, path in found if path.exists()]


def _address(path: Path, folder: Path) -> str:
    """The percent-encoded address of a file from a page in `folder`: what is a space or # in a path is none in it."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
