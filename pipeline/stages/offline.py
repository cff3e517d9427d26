"""The data sets' authors' programs: offline training over a split, evaluation, fine-tuning online."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from corl.evaluate import VectorEnvironment, evaluate
from corl.finetune import load_agent
from corl.multitask_run import checkpoint_name, load_config, load_policy
from corl.online import OnlineScores
from corl.online_config import RUNTIME_SETTINGS, OnlineConfig
from envs.family import family_of
from envs.pool import EnvPool, Step
from offline_compositional_rl_datasets.composuite import AXES
from offline_compositional_rl_datasets.composuite_splits import get_partial_task_list, get_task_list
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.stage import key_of
from pipeline.stages.online import OnlineStage, Tracking
from pipeline.stages.score_table import SCORES_FILE, ScoreRow, mean_rate, write_score_table
from runtime.checkpoint import entry
from runtime.config import config_hash, dict_without
from runtime.cpus import worker_count
from runtime.errors import ConfigError
from runtime.paths import path_part
from runtime.seeds import derive_seed
from runtime.tables import write_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetConfig:
    """Which tasks and data: the keys `dataset.*` of the authors' programs."""

    dir: Path
    task_list_path: Path
    split: str = "default"
    type: str = "expert"
    seed: int = 0
    holdout_elem: str | None = None
    partial_use: bool = False
    partial_remove_elems: tuple[str, ...] = ("IIWA",)
    partial_n_tasks: int = 64

    def __post_init__(self) -> None:
        if not self.partial_use:
            return
        known = [element for elements in AXES.values() for element in elements]
        unknown = [element for element in self.partial_remove_elems if element not in known]
        if unknown:
            raise ConfigError(f"partial_remove_elems {', '.join(unknown)}: expected some of {', '.join(known)}")
        if self.partial_n_tasks < 1:
            raise ConfigError(f"partial_n_tasks {self.partial_n_tasks}: expected at least 1")

    def tasks(self) -> dict[str, list[Task]]:
        """`train`, `expert` (empty in most families) and `test`."""
        _, train, expert, test = get_task_list(self.task_list_path, self.type, self.split, self.holdout_elem, self.seed)
        if self.partial_use:
            train, removed = get_partial_task_list(train, self.partial_remove_elems, self.partial_n_tasks)
            test = [*test, *removed]
        return {"train": train, "expert": expert or [], "test": test}

    def files(self) -> tuple[tuple[Task, Path], ...]:
        """The data of all training tasks. Raises `DataError` for the first that is missing."""
        tasks = self.tasks()
        if not tasks["train"] and not tasks["expert"]:
            raise ConfigError(f"dataset split {self.split}: no training task is left to learn from")
        kinds = [(task, self.type) for task in tasks["train"]] + [(task, "expert") for task in tasks["expert"]]
        return tuple((task, family_of(task).data_file(self.dir, kind, task)) for task, kind in kinds)

    def folder(self, root: Path, exp: str, algo: str) -> Path:
        """Where a learner's results are under `root`. Raises `ConfigError` for a part that is no name of a folder."""
        names = {"dataset_type": self.type, "dataset_split": self.split, "exp": exp, "algo": algo}
        return root.joinpath(*(path_part(flag, name) for flag, name in names.items()), str(self.seed))


class _Recording:
    """A vectorised environment that keeps the rewards of every step."""

    def __init__(self, environment: VectorEnvironment) -> None:
        self.environment, self.num_envs = environment, environment.num_envs
        self.rewards: list[np.ndarray] = []

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return self.environment.reset(seeds)

    def step(self, actions: np.ndarray) -> Step:
        result = self.environment.step(actions)
        self.rewards.append(result[1])
        return result


def roll_out(
    checkpoint: Path, tasks: Mapping[str, Sequence[Task]], folder: Path, *, n_steps: int, n_trajs: int, seed: int
) -> dict[str, float]:
    """Run a multitask policy in all tasks of each group; the mean success per group.

    Writes `<group>_returns.csv` (columns traj, step and one per task: the reward of that step), and beside it what the
    authors' program leaves out: `scores.csv`, where the method is the algorithm for the held-out tasks (`test`) and
    the algorithm and the group for the others.
    """
    config, contents = load_config(checkpoint)
    step = entry(contents, "total_it", int, checkpoint)
    scores: list[ScoreRow] = []
    groups = {group: list(members) for group, members in tasks.items() if members}
    rates: dict[str, float] = {}
    first = next(iter(groups.values()))[0]
    policy = load_policy(checkpoint, first.layout)
    with EnvPool(first, n_trajs, workers=worker_count(), horizon=n_steps) as environment:
        for group, members in groups.items():
            columns: dict[str, np.ndarray] = {}
            method = config.algorithm if group == "test" else f"{config.algorithm} {group}"
            solved = []
            for task in members:
                if environment.task != task:
                    environment.assign(task)
                recording = _Recording(environment)
                seeds = [derive_seed("evaluation", seed, task.name, trial) for trial in range(n_trajs)]
                result = evaluate(policy(task), recording, seeds)
                rewards = np.zeros((n_trajs, n_steps))
                rewards[:, : len(recording.rewards)] = np.stack(recording.rewards, axis=1)
                columns[task.name] = rewards.reshape(-1)
                counts = (result.solved, result.episodes, result.mean_return)
                solved.append(ScoreRow(task.name, method, seed, step, *counts))
                log.info("%s: %d/%d solved, return %.1f", task, result.solved, result.episodes, result.mean_return)
            rows = (
                {"traj": i // n_steps, "step": i % n_steps, **{name: f"{v[i]:.6g}" for name, v in columns.items()}}
                for i in range(n_trajs * n_steps)
            )
            write_csv(folder / f"{group}_returns.csv", ["traj", "step", *columns], rows)
            rates[group] = float(mean_rate(solved))
            scores += solved
    write_score_table(folder / SCORES_FILE, sorted(scores, key=lambda row: row.method))
    return rates


@dataclass(frozen=True)
class FineTune(OnlineStage):
    """Go on with an offline agent in one task online."""

    task: Task
    checkpoint: Path
    config: OnlineConfig
    seed: int
    folder: Path
    tracking: Tracking = field(default_factory=Tracking)
    method: str = "finetune"  # its name in tables of scores
    device: str = "auto"

    verb: ClassVar[str] = "finetune"

    def key(self) -> str:
        settings = dict_without(self.config, RUNTIME_SETTINGS)
        return config_hash([self.task.name, key_of(self.checkpoint), settings, self.seed])

    def _learn(self, key: str, device: torch.device) -> OnlineScores:
        agent, code = load_agent(self.checkpoint, self.task.layout, seed=self.seed, device=device)
        return self._train(agent, code, None, key=key, device=device)


def newest_checkpoint(folder: Path, seed: int) -> Path:
    return folder / checkpoint_name("last", seed)
