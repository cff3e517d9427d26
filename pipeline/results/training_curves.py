"""How a run's generators and policies trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.plan import generator_stages
from pipeline.loop.run import Run
from pipeline.stages.paths import policy_folder
from runtime.metrics import read_metrics


def loss_curves(run: Run) -> Iterator[tuple[int, int, list[tuple[int, float]]]]:
    """Iteration, number of the generator and (step, denoising loss) while it trained."""
    for it in run.state.iterations:
        for stage in generator_stages(run, it):
            rows = read_metrics(stage.checkpoint.parent / "metrics.jsonl", "loss")
            if rows:
                yield it.index, stage.number, [(row["step"], row["loss"]) for row in rows]


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
