"""What a run has done, does, and does next; what its jobs asked for and used. Reads files, changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.jobs.attempts import Ledger, Record
from pipeline.jobs.scheduler import JobInfo
from pipeline.jobs.stage import Stage
from pipeline.jobs.usage import notes_of, used
from pipeline.loop.config import PathConfig
from pipeline.loop.plan import stages_of
from pipeline.loop.run import Run, latest
from pipeline.loop.state import Iteration
from runtime.atomic import artifact_info
from runtime.errors import DataError
from runtime.logs import duration

_WIDTH = 80


def count(stages: Sequence[Stage], records: Mapping[str, Record], jobs: Mapping[str, JobInfo] | None) -> dict[str, int]:
    """How many stages are done, run, are queued or wait to be submitted, by artifacts, ledger and scheduler.

    Without an answer of the scheduler (`jobs` None) submitted jobs count as `submitted`.
    """
    counts = dict.fromkeys(("done", "running", "queued", "submitted", "waiting"), 0)
    for stage in stages:
        record = records.get(stage.name)
        job_id = record.job_id if record else ""
        if artifact_info(stage.output) is not None:
            counts["done"] += 1
        elif not job_id:
            counts["waiting"] += 1
        elif jobs is None:
            counts["submitted"] += 1
        else:
            state = jobs[job_id].state if job_id in jobs else ""
            counts["running" if state in ("RUNNING", "COMPLETING") else "queued" if state else "waiting"] += 1
    return counts


def eta_seconds(
    counts: Mapping[str, int], seconds: Sequence[float], begun: Sequence[tuple[float, float]] = ()
) -> float | None:
    """Time until a stage's jobs are done, if they go on as so far; None while nothing is known or none runs.

    `seconds` are those that finished jobs took, `begun` the fraction done and the seconds so far of those that run (a
    job that goes on from a checkpoint looks faster than it is).
    """
    left = sum(counts.values()) - counts["done"] - sum(fraction for fraction, _ in begun)
    at_once = counts["running"] + counts["submitted"]
    if left <= 0:
        return 0.0
    took = [*seconds, *(so_far / fraction for fraction, so_far in begun if fraction)]
    return left * sum(took) / len(took) / at_once if took and at_once else None


def under_way(stages: Sequence[Stage], notes: Sequence[Mapping[str, Any]], now: float) -> list[tuple[float, float]]:
    """Fraction done and seconds so far of the stages that jobs are working on, by their notes and metrics."""
    started = {note["stage"]: note["started"] for note in notes if note["outcome"] == "running"}
    left = [stage for stage in stages if stage.name in started and artifact_info(stage.output) is None]
    return [(stage.progress().fraction, max(now - started[stage.name], 0.0)) for stage in left]


def status_of(run: Run, jobs: Mapping[str, JobInfo] | None) -> dict[str, Any]:
    """Everything as plain values; see `render`."""
    run = latest(run)
    state = run.state
    iteration = state.current
    stages = [] if iteration is None else _stages_under_way(run, iteration, jobs)
    return {
        "run": run.config.run_name,
        "folder": str(run.folder),
        "gone": gone(run),
        "scheduler": "no answer" if jobs is None else "answers",
        "outcome": state.outcome,
        "iteration": iteration.index if iteration else None,
        "iterations_done": sum(it.complete for it in state.iterations),
        "max_iterations": run.config.max_iterations,
        "threshold": str(state.threshold.value),
        "solved": len(state.solved(run.tasks.generated)),
        "tasks": len(run.tasks.generated),
        "held_out_solved": len(state.solved(run.tasks.test)),
        "held_out_tasks": len(run.tasks.test),
        "next": next_step(state.outcome, stages, iteration),
        "stages": stages,
    }


def _stages_under_way(run: Run, iteration: Iteration, jobs: Mapping[str, JobInfo] | None) -> list[dict[str, Any]]:
    """The stages of an iteration: jobs that are done, run and wait, and what they asked for and used."""
    notes = notes_of(run.jobs_folder, run.config.run_name, run.folder)
    records = Ledger(run.folder / "jobs.json").records
    stages = []
    for name in run.config.stages:
        group = f"{name}_i{iteration.index}"
        mine = [note for note in notes if note["group"] == group]
        finished = [note for note in mine if note["outcome"] == "done"]
        jobs_of = stages_of(run, iteration)[name]
        counts = count(jobs_of, records, jobs)
        asked, most = run.config.resources.of(name), used(mine)
        stages.append(
            {
                "stage": name,
                **counts,
                "failed_tries": sum(sum(records[s.name].tries.failures.values()) for s in jobs_of if s.name in records),
                "eta_seconds": eta_seconds(
                    counts, [note["seconds"] for note in finished], under_way(jobs_of, mine, time.time())
                ),
                "memory_gb": {"asked": asked.memory_gb, "used": most.memory_gb},
                "hours": {"asked": asked.hours, "used": most.hours},
            }
        )  # fmt: skip
    return stages


def gone(run: Run) -> dict[str, str]:
    """Folders of this run's, as they were recorded, that are not there any more: it or they were moved."""
    expected = {"logs_path": run.paths.logs_path}
    if run.paths.splits_path:
        expected["splits_path"] = run.paths.splits_path
    if run.state.expert_data:
        expected["data_path"] = run.paths.data_path
    return {name: str(path) for name, path in expected.items() if run.folder.exists() and not path.exists()}


def next_step(outcome: str | None, stages: Sequence[Mapping[str, Any]], iteration: Iteration | None) -> str:
    if outcome:
        return f"nothing: {outcome}"
    if iteration is None:
        return "the next iteration begins"
    for stage in stages:
        left = stage["running"] + stage["queued"] + stage["submitted"] + stage["waiting"]
        if left:
            return f"{left} job{'' if left == 1 else 's'} of stage {stage['stage']}"
    return "the sets are judged"


def render(status: Mapping[str, Any]) -> str:
    """Status as lines of at most 80 characters."""
    where = f"iteration {status['iteration']}" if status["iteration"] is not None else "between iterations"
    done, asked = status["iterations_done"], status["max_iterations"]
    progress = f"{done} of {asked} done" if done <= asked else f"{done} done, {asked} asked for"
    lines = [
        status["run"][:_WIDTH],
        f"{where}; {progress}; threshold {status['threshold']}",
        f"solved (set accepted): {status['solved']} of {status['tasks']} generated tasks, "
        f"{status['held_out_solved']} of {status['held_out_tasks']} held out",
        f"next: {status['next']}"[:_WIDTH],
    ]
    lines += [f"gone: {name} {path}" for name, path in status["gone"].items()]
    if status["scheduler"] != "answers":
        lines.append("the scheduler gives no answer here: jobs are as the loop last knew them")
    if status["stages"]:
        width = max(11, *(len(stage["stage"]) + 1 for stage in status["stages"]))
        lines.append(f"{'stage':<{width}}{'done':>5}{'run':>5}{'queue':>6}{'wait':>5}{'failed':>7}{'ETA':>8}"
                     f"{'GB asked/used':>16}{'h asked/used':>16}")  # fmt: skip
    for stage in status["stages"]:
        eta = "?" if stage["eta_seconds"] is None else duration(stage["eta_seconds"])
        lines.append(
            f"{stage['stage']:<{width}}{stage['done']:>5}{stage['running'] + stage['submitted']:>5}{stage['queued']:>6}"
            f"{stage['waiting']:>5}{stage['failed_tries']:>7}{eta:>8}"
            f"{_pair(stage['memory_gb']):>16}{_pair(stage['hours']):>16}"
        )
    return "\n".join(lines)


def _pair(values: Mapping[str, float | None]) -> str:
    used = "-" if values["used"] is None else f"{values['used']:.2f}"
    return f"{values['asked']:.4g}/{used}"


def find_runs(results_path: Path | None) -> list[Path]:
    """Folders of all runs. Raises `DataError` where there is none."""
    loops = PathConfig(results_path=results_path).resolved().results_path / "loops"
    found = sorted(file.parent for file in loops.glob("*/config.json"))
    if not found:
        raise DataError(f"{loops}: no run here; --results_path says where results are")
    return found


def plan(run: Run) -> str:
    """What the loop would do next, and with what: for `--dry_run`."""
    status = status_of(run, None if run.folder.exists() else {})
    lines = [render(status), "", "what one job of each stage asks for:"]
    width = max(11, *(len(name) + 1 for name in run.config.stages))
    for name in run.config.stages:
        asked = run.config.resources.of(name)
        lines.append(
            f"  {name:<{width}}{asked.memory_gb:>5} GB {asked.hours:>6.4g} h {asked.cpus:>3} CPU {asked.gpus:>2} GPU"
        )
    tests, middle = len(run.tasks.test), len(run.tasks.middle)
    policies = tests * len(run.config.rl_seeds) + middle * len(run.config.middle_seeds)
    groups = math.ceil(policies / run.config.policy.group)
    together = f" ({policies} policies)" if groups < policies else ""
    generators, sets = run.config.generators, math.ceil((tests + middle) / run.config.generation_group)
    lines.append(
        f"jobs of a full iteration: {generators} + {sets} + {groups}{together}; jobs run on {run.config.cluster.kind}"
    )
    return "\n".join(lines)
