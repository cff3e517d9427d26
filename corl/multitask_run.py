"""Training of a multitask policy as files under the published names; resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corl.evaluate import Evaluation
from corl.learners import LEARNERS
from corl.multitask import TaskData, TaskPolicy
from corl.multitask_config import MultitaskConfig
from corl.multitask_learner import make_learner, make_network
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.task import Task
from runtime.atomic import write_json
from runtime.checkpoint import (
    build_within,
    entry,
    expect_finite,
    load_checkpoint,
    load_weights,
    replace_torch,
    restore_random,
)
from runtime.config import from_mapping, to_dict
from runtime.errors import DataError
from runtime.logs import progress
from runtime.resumable import ResumableRun
from runtime.seeds import derive_seed

_BLOCK = 50

PolicyOf = Callable[[Task], TaskPolicy]
EvaluateTasks = Callable[[PolicyOf, Sequence[Task]], Mapping[Task, Evaluation]]


def checkpoint_name(which: str, seed: int) -> str:
    """`which` is `best_score`, `best_success` (averages over the held-out tasks) or `last`."""
    return f"{which}_checkpoint_seed{seed}.pt"


class MultitaskRun(ResumableRun):
    """One agent in its folder. Opens where it was left."""

    FORMAT = "multitask 3"

    def __init__(
        self,
        data: TaskData,
        config: MultitaskConfig,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        layout: FactoredLayout,
        key: str | None = None,
    ) -> None:
        super().__init__(folder, key=key, checkpoint_seconds=config.checkpoint_seconds)
        self.data, self.config, self.seed, self.layout, self.device = data, config, seed, layout, device
        self.learner = make_learner(config, layout, seed=seed, device=device)
        self.indices = torch.Generator(device).manual_seed(derive_seed("replay", seed))
        self.best: dict[str, Any] = dict.fromkeys(("best_score", "best_success"))
        self.restore()

    @property
    def step(self) -> int:
        return self.learner.total_it

    def policy(self, task: Task) -> TaskPolicy:
        return TaskPolicy(self.learner.actor, self.data.transform, task, self.device)

    def next_boundary(self) -> int:
        """The step at which something is to be written down next."""
        periods = [period for period in (self.config.eval_freq, self.config.log_freq) if period]
        return min(self.config.max_timesteps, *((self.step // period + 1) * period for period in periods))

    def advance(self, steps: int) -> dict[str, torch.Tensor]:
        """Take so many gradient steps, at most a block; the last ones' losses."""
        losses: dict[str, torch.Tensor] = {}
        # A block of indices at once: many small draws cost more than they need to.
        block = torch.randint(
            len(self.data), (min(steps, _BLOCK), self.config.batch_size), generator=self.indices, device=self.device
        )
        for rows in block:
            losses |= self.learner.update(self.data.batch(rows))
        return losses

    def record(self, results: Mapping[Task, Evaluation], losses: Mapping[str, float]) -> dict[str, Any]:
        """Write down an evaluation over the held-out tasks; better checkpoints are kept.

        Raises `DataError` where what was learned is not finite.
        """
        averages = {
            "best_score": float(np.mean([result.mean_return for result in results.values()])),
            "best_success": float(np.mean([result.success_rate for result in results.values()])),
        }
        tasks = per_task(results)
        for which, value in averages.items():
            best = self.best[which]
            if best is None or value > best["value"]:
                self.best[which] = {"value": value, "eval_step": self.step, "per_task_results": tasks}
                self.save_checkpoint(which)
        score, success = averages.values()
        record = {
            "step": self.step,
            "seed": self.seed,
            "current_avg_score": score,
            "current_avg_success_rate": success,
            "best_checkpoint_score": self.best["best_score"]["value"],
            "best_checkpoint_success_rate": self.best["best_success"]["value"],
            "current_eval_results": tasks,
        }
        write_json(self.folder / f"eval_step{self.step}_seed{self.seed}.json", record)
        self.write_metrics(step=self.step, avg_score=score, success_rate=success, **losses)
        return record

    def save_checkpoint(self, which: str) -> None:
        """The weights with all that a policy needs to act."""
        learner = self.learner.state_dict()
        path = self.folder / checkpoint_name(which, self.seed)
        expect_finite(learner, f"{path}: what was learned up to step {self.step}")
        values = {
            **learner,
            "config": to_dict(self.config),
            "states": self.data.transform.state_dict(),
        }
        replace_torch(values, path)

    def state_dict(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict(), "indices": self.indices.get_state(), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        restore_random(self.indices, state["indices"], self.step)
        self.best = dict(state["best"])


def load_policy(path: Path, layout: FactoredLayout) -> PolicyOf:
    """The policies (one per task, on the CPU) of a checkpoint. Raises `DataError` where it is not one."""
    config, checkpoint = load_config(path)
    acting = LEARNERS[config.kind].acting
    actor = build_within(path, lambda: make_network("actor", config, layout))
    load_weights(actor, entry(checkpoint, acting, Mapping, path), path, acting)
    actor.requires_grad_(False)
    transform = StateTransform.load(checkpoint["states"], layout, f"{path}: states", with_ids=True)
    return lambda task: TaskPolicy(actor, transform, task)


def load_config(path: Path) -> tuple[MultitaskConfig, dict[str, Any]]:
    """A checkpoint's configuration, and all of it. Raises `DataError` where it is not one of a multitask agent."""
    checkpoint = load_checkpoint(path)
    needed = ("config", "actor", "states")
    missing = [key for key in needed if key not in checkpoint]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}, expected a checkpoint of a multitask agent")
    return from_mapping(MultitaskConfig, entry(checkpoint, "config", Mapping, path), source=str(path)), checkpoint


def per_task(results: Mapping[Task, Evaluation]) -> dict[str, dict[str, float | int]]:
    """Under the published names, with the successes as k of n."""
    return {
        task.name: {
            "mean_reward": result.mean_return,
            "std_reward": float(result.returns.std()),
            "success_rate": result.success_rate,
            "solved": result.solved,
            "episodes": result.episodes,
        }
        for task, result in results.items()
    }


def train_multitask(
    run: MultitaskRun, evaluate: EvaluateTasks, test_tasks: Sequence[Task], train_tasks: Sequence[Task], label: str
) -> dict[str, Any]:
    """Train to the end, evaluating on the held-out tasks on the way and on all tasks at the end; the final results.

    As published, the reported checkpoint is that of the best average return over the held-out tasks; the last one's
    results stand beside it, since a choice by the tasks that are reported is optimistic.
    """
    config = run.config
    with progress(config.max_timesteps, label, done=run.step) as bar, run:
        while run.step < config.max_timesteps:
            boundary = run.next_boundary()
            losses: dict[str, torch.Tensor] = {}
            while run.step < boundary:
                before = run.step
                losses |= run.advance(boundary - before)
                bar.update(run.step - before)
                if run.step < boundary:
                    run.between_steps()
            figures = {name: float(value) for name, value in losses.items()}
            due = config.eval_freq and (run.step == config.max_timesteps or run.step % config.eval_freq == 0)
            if due and test_tasks:
                record = run.record(evaluate(run.policy, test_tasks), figures)
                bar.update(0, success=record["current_avg_success_rate"])
            else:
                run.write_metrics(step=run.step, **figures)
            run.save()
            run.leave_if_asked()
        run.save_checkpoint("last")
        return _final_results(run, evaluate, test_tasks, train_tasks)


def _final_results(
    run: MultitaskRun, evaluate: EvaluateTasks, test_tasks: Sequence[Task], train_tasks: Sequence[Task]
) -> dict[str, Any]:
    results: dict[str, Any] = {"seed": run.seed, "algorithm": run.config.algorithm, "steps": run.step}
    if not run.config.eval_freq:
        return results
    held_out = evaluate(run.policy, test_tasks) if test_tasks else {}
    trained = evaluate(run.policy, train_tasks) if train_tasks else {}
    if held_out:
        results["final_eval_avg_score"] = float(np.mean([r.mean_return for r in held_out.values()]))
        results["final_eval_avg_success_rate"] = float(np.mean([r.success_rate for r in held_out.values()]))
        for which, name in (("best_score", "avg_score"), ("best_success", "avg_success_rate")):
            best = dict(run.best[which])
            results[f"{which}_checkpoint"] = {name: best.pop("value"), **best}
    results["final_eval_results"] = per_task(held_out)
    results["train_task_results"] = per_task(trained)
    return results
