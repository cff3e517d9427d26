"""Multitask offline learning as a stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corl.evaluate import Evaluation, evaluate
from corl.multitask import TaskData
from corl.multitask_config import RUNTIME_SETTINGS, MultitaskConfig
from corl.multitask_run import EvaluateTasks, MultitaskRun, PolicyOf, train_multitask
from envs.family import family_of
from envs.pool import EnvPool
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.stage import StageProgress, key_of
from pipeline.stages.score_table import ScoreRow, mean_rate
from pipeline.stages.scored import ScoredStage
from runtime.atomic import read_json
from runtime.config import config_hash, dict_without
from runtime.cpus import worker_count
from runtime.device import pick_device
from runtime.errors import DataError
from runtime.metrics import read_metrics
from runtime.records import decode
from runtime.resumable import discard
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)

LAST, TRAINED = "last", "train"
"""What stands behind an algorithm's name in tables: results of the last checkpoint, and those of training tasks."""


@dataclass(frozen=True)
class TrainMultitask(ScoredStage):
    """One agent on the expert sets of many tasks; evaluated on held-out and on training tasks."""

    data: tuple[tuple[Task, Path], ...]
    test_tasks: tuple[Task, ...]
    config: MultitaskConfig
    seed: int
    folder: Path
    device: str = "auto"

    @property
    def name(self) -> str:
        return f"{self.config.algorithm} seed {self.seed}"

    @property
    def output(self) -> Path:
        return self.folder / f"final_results_seed{self.seed}.json"

    def key(self) -> str:
        settings = dict_without(self.config, RUNTIME_SETTINGS)
        data = [(task.name, key_of(path)) for task, path in self.data]
        return config_hash([data, [task.name for task in self.test_tasks], settings, self.seed])

    def progress(self) -> StageProgress:
        rows = read_metrics(self.folder / "metrics.jsonl")
        if not rows:
            return StageProgress("beginning")
        step, steps = rows[-1]["step"], self.config.max_timesteps
        rate = rows[-1].get("success_rate")
        success = f", success {rate:.2f}" if isinstance(rate, float) else ""
        return StageProgress(f"step {step:,}/{steps:,}{success}", step / steps)

    def results(self) -> dict[str, Any]:
        """Of a finished job. Raises `DataError` naming the file where it is not what such a job writes."""
        results = read_json(self.output)
        if not isinstance(results, Mapping):
            raise DataError(f"{self.output}: holds a {type(results).__name__}, expected an object with keys")
        best = results.get("best_score_checkpoint", {})
        parts = [best.get("per_task_results") if isinstance(best, Mapping) else best]
        for part in (*parts, results.get("final_eval_results"), results.get("train_task_results")):
            for name, result in _tasks_of(part, self.output).items():
                decode(TaskResult, result, source=f"{self.output}: {name}")
        return dict(results)

    def score_rows(self) -> list[ScoreRow]:
        """None before the end; then of the best-score checkpoint, of the last one, and of the training tasks."""
        if not self.output.exists():
            return []
        results = self.results()
        best = results.get("best_score_checkpoint", {})
        parts = (
            ("", best.get("eval_step", 0), best.get("per_task_results")),
            (LAST, results.get("steps", 0), results.get("final_eval_results")),
            (TRAINED, results.get("steps", 0), results.get("train_task_results")),
        )
        return [
            ScoreRow(task, f"{self.config.algorithm} {word}".strip(), self.seed, step, *_counts(result))
            for word, step, part in parts
            for task, result in _tasks_of(part, self.output).items()
        ]

    def summary(self) -> str:
        rows = [row for row in self.score_rows() if row.method == self.config.algorithm]
        return f"success {float(mean_rate(rows)):.2f} over {len(rows)} held-out tasks" if rows else "trained"

    def work(self, key: str) -> None:
        config, device = self.config, pick_device(self.device)
        family, layout = family_of(self.data[0][0]), self.data[0][0].layout
        parts = [family.read_data(path, task, episode_ends=config.episode_ends) for task, path in self.data]
        data = TaskData(parts, config, layout, device)
        log.info("%s: %d rows of %d tasks", self.name, len(data), len(parts))
        del parts
        run = MultitaskRun(data, config, self.folder, seed=self.seed, device=device, layout=layout, key=key)
        with TaskEvaluator(config, self.seed, self.threads) as evaluator:
            train_tasks = tuple(task for task, _ in self.data)
            results = train_multitask(run, evaluator, self.test_tasks, train_tasks, self.name)
        self.commit(results, key)
        discard(self.folder)


def _counts(result: Mapping[str, Any]) -> tuple[int, int, float]:
    return result["solved"], result["episodes"], result["mean_reward"]


@dataclass(frozen=True)
class TaskResult:
    """What stands of a task in a seed's results."""

    mean_reward: float
    std_reward: float
    success_rate: float
    solved: int
    episodes: int


def _tasks_of(part: Any, path: Path) -> Mapping[str, Any]:
    """Task name -> result, empty where that part was not computed."""
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise DataError(f"{path}: holds a {type(part).__name__} of tasks, expected an object with a key per task")
    return part


class TaskEvaluator:
    """Seeded episodes of a multitask policy, task after task in the same processes. To be used as a context manager."""

    def __init__(self, config: MultitaskConfig, seed: int, threads: int = 0) -> None:
        self.config, self.seed = config, seed
        self._workers = worker_count(threads)
        self._environment: EnvPool | None = None

    def __call__(self, policy: PolicyOf, tasks: Sequence[Task]) -> Mapping[Task, Evaluation]:
        results = {}
        for task in tasks:
            count = self.config.n_episodes
            if self._environment is None:
                options = {"workers": self._workers, "horizon": self.config.horizon}
                self._environment = EnvPool(task, count, **options)
            elif self._environment.task != task:
                self._environment.assign(task)
            seeds = [derive_seed("evaluation", self.seed, task.name, episode) for episode in range(count)]
            results[task] = evaluate(policy(task), self._environment, seeds)
        return results

    def __enter__(self) -> EvaluateTasks:
        return self

    def __exit__(self, *error: object) -> None:
        if self._environment is not None:
            self._environment.close()
