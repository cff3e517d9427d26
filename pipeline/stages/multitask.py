"""Multitask offline learning as a stage, and the runs over seeds with their table."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corl.evaluate import Evaluation, evaluate
from corl.multitask import RUNTIME_SETTINGS, MultitaskConfig, TaskData
from corl.multitask_run import EvaluateTasks, MultitaskRun, PolicyOf, train_multitask
from envs.pool import EnvPool
from offline_compositional_rl_datasets.hdf5 import read_expert
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.queue import run_batch
from pipeline.jobs.stage import StageProgress, commit_record, held, key_of
from pipeline.loop.config import ClusterConfig, Resources, RetryConfig
from pipeline.sweeps.ownership import owned
from runtime.atomic import read_json
from runtime.config import config_hash, dict_without
from runtime.cpus import cpu_count, use_threads
from runtime.device import pick_device
from runtime.errors import DataError, JobError
from runtime.metrics import read_metrics, write_csv
from runtime.records import decode
from runtime.resumable import discard
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainMultitask:
    """One agent on the expert sets of many tasks; evaluated on held-out and on training tasks."""

    data: tuple[tuple[Task, Path], ...]
    test_tasks: tuple[Task, ...]
    config: MultitaskConfig
    seed: int
    folder: Path
    device: str = "auto"
    threads: int = 0

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

    def __call__(self) -> None:
        with held(self, self.folder) as key:
            if key is None:
                return
            use_threads(self.threads)
            config, device = self.config, pick_device(self.device)
            parts = [read_expert(path, task, episode_ends=config.episode_ends) for task, path in self.data]
            data = TaskData(parts, config, COMPOSUITE, device)
            log.info("%s: %d rows of %d tasks", self.name, len(data), len(parts))
            del parts
            run = MultitaskRun(data, config, self.folder, seed=self.seed, device=device, key=key)
            with TaskEvaluator(config, self.seed, self.threads) as evaluator:
                train_tasks = tuple(task for task, _ in self.data)
                results = train_multitask(run, evaluator, self.test_tasks, train_tasks, self.name)
            commit_record(self, results, key)
            discard(self.folder)


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
        cores = threads or cpu_count()
        self._workers = cores if cores > 1 else 0
        self._environment: EnvPool | None = None

    def __call__(self, policy: PolicyOf, tasks: Sequence[Task]) -> Mapping[Task, Evaluation]:
        results = {}
        for task in tasks:
            count = self.config.n_eval_episodes
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


def run_seeds(
    stages: Sequence[TrainMultitask],
    resources: Resources,
    cluster: ClusterConfig,
    retry: RetryConfig,
    *,
    logs: Path,
    table: Path,
) -> None:
    """Run all seeds as jobs, then write `table` and, for the training tasks, `<table>_train_tasks.csv`.

    Raises `JobError` where a seed failed for good; the table of the others is written before. Raises `StateError` where
    the table's folder is another command's.
    """

    def on_done(stage: TrainMultitask) -> str:
        results = stage.results()
        held_out = results.get("best_score_checkpoint", {}).get("per_task_results", {})
        rates = [result["success_rate"] for result in held_out.values()]
        return f"success {np.mean(rates):.2f} over {len(rates)} held-out tasks" if rates else "trained"

    first, folder = stages[0], table.parent
    identity = {
        "config": dict_without(first.config, RUNTIME_SETTINGS),
        "tasks": [task.name for task, _ in first.data],
        "held_out": [task.name for task in first.test_tasks],
    }
    with owned(folder, identity, [stage.name for stage in stages]):
        failed = run_batch(stages, resources, cluster, retry, on_done, name=table.stem, folder=folder, logs=logs)
        done = [stage for stage in stages if stage.name not in failed]
        if done:
            write_tables(done, table)
            log.info("table: %s", table)
    if failed:
        name, reason = next(iter(failed.items()))
        raise JobError(f"{len(failed)} of {len(stages)} seeds failed for good; {name}: {reason}")


def write_tables(stages: Sequence[TrainMultitask], table: Path) -> None:
    """The published table of held-out tasks (best-score checkpoint of each seed), and that of the training tasks."""
    results = {stage.seed: stage.results() for stage in stages}
    held_out = {seed: r.get("best_score_checkpoint", {}).get("per_task_results", {}) for seed, r in results.items()}
    _write_table(table, held_out)
    last = {seed: r.get("final_eval_results", {}) for seed, r in results.items()}
    _write_table(table.with_name(f"{table.stem}_last_checkpoint.csv"), last)
    trained = {seed: r.get("train_task_results", {}) for seed, r in results.items()}
    _write_table(table.with_name(f"{table.stem}_train_tasks.csv"), trained)


def _write_table(path: Path, results: Mapping[int, Mapping[str, Mapping[str, float]]]) -> None:
    columns = ["task"]
    for seed in results:
        columns += [f"score_seed{seed}", f"success_seed{seed}", f"solved_seed{seed}"]
    columns += ["avg_score", "avg_success"]
    rows, tasks = [], list(next(iter(results.values())))
    for task in tasks:
        row: dict[str, Any] = {"task": task}
        for seed, of_seed in results.items():
            result = of_seed[task]
            row[f"score_seed{seed}"] = f"{result['mean_reward']:.3f}"
            row[f"success_seed{seed}"] = f"{result['success_rate']:.4f}"
            row[f"solved_seed{seed}"] = f"{result['solved']}/{result['episodes']}"
        row["avg_score"] = f"{np.mean([r[task]['mean_reward'] for r in results.values()]):.3f}"
        row["avg_success"] = f"{np.mean([r[task]['success_rate'] for r in results.values()]):.4f}"
        rows.append(row)
    if rows:
        overall = {"task": "OVERALL_AVERAGE"}
        for column in columns[1:]:
            if not column.startswith("solved"):
                overall[column] = f"{np.mean([float(row[column]) for row in rows]):.4f}"
        rows.append(overall)
    write_csv(path, columns, rows)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
