"""What a run's iterations and stages came to: verdicts, time, resources."""

from __future__ import annotations

from typing import Any

from pipeline.jobs.usage import notes_of, of_stage, used
from pipeline.loop.plan import (
    generation_jobs,
    policy_stages,
    practice_stages,
    practised_policy_stages,
)
from pipeline.loop.run import Run
from runtime.logs import duration

STAGES = {
    "diffusion": "train the generator",
    "generation": "generate",
    "policy": "train and test policies",
    "practice": "practise",
    "practised_policy": "test practised sets",
}
"""Stage of an iteration -> what it does, in their order; the last two where practice is asked for."""


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
        "generation": sum(len(generation_jobs(run, it)) for it in iterations),
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
