"""What a run does now, by the files that are there."""

from __future__ import annotations

from offline_compositional_rl_datasets.hdf5 import task_file
from pipeline.loop.plan import (
    generation_stages,
    generator_stages,
    policies,
    practice_stages,
    practised_policy_stages,
)
from pipeline.loop.run import Run
from pipeline.results.history import STAGES
from runtime.atomic import is_complete

_SHOWN_JOBS = 6


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
        texts = [each.progress().text for each in generator_stages(run, iteration)]
        return [f"{head}: {texts[0]}", *(f"generator {k}: {text}" for k, text in enumerate(texts[1:], 1))]
    if stage in ("generation", "practice"):
        sets = generation_stages(run, iteration) if stage == "generation" else practice_stages(run, iteration)
        done = sum(is_complete(each.output) for each in sets)
        return [f"{head}: {done} of {len(sets)} {'sets' if stage == 'generation' else 'tasks'} done"]
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
