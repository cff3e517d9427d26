"""The command lines of the data sets' authors: offline training over a split, evaluation, fine-tuning online."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipeline.commands.online import EvaluatedFlags
from runtime.cli import parse_flags
from runtime.flags import ConfigFlags, alias, setting

if TYPE_CHECKING:
    from pipeline.stages.offline import DatasetConfig

# Worker processes import their parent's script: the rest is imported where it is needed.

Algorithm = Literal["bc", "cp_bc", "iql", "cp_iql", "td3_bc", "transformer_td3_bc", "compositional_td3_bc"]


@dataclass(frozen=True)
class SplitFlags:
    """A split and its data."""

    dataset_task_list_path: Path | None = None
    """folder of the splits; default: the published ones"""
    dataset_split: str = "default"
    """default, compositional, holdout or component-wise; without a file the split is drawn"""
    dataset_type: str = "expert"
    """expert, medium, random or medium-replay-subsampled"""
    dataset_seed: int = 0
    """which split"""
    dataset_holdout_elem: str | None = None
    """the element that a holdout split leaves out"""

    def config(self, folder: Path | None = None) -> DatasetConfig:
        """What the flags stand for; folders that are not given come from config/paths.yaml."""
        from offline_compositional_rl_datasets.composuite_splits import PUBLISHED
        from pipeline.stages.offline import DatasetConfig
        from runtime.paths import machine_settings

        return DatasetConfig(
            folder or machine_settings().data_path,
            self.dataset_task_list_path or PUBLISHED,
            self.dataset_split,
            self.dataset_type,
            self.dataset_seed,
            self.dataset_holdout_elem,
        )


@dataclass(frozen=True)
class DatasetFlags(SplitFlags):
    """A split, its data, and which part of its training tasks is used."""

    dataset_partial_use: bool = False
    """train on a part of the tasks"""
    dataset_partial_remove_elems: tuple[str, ...] = ("IIWA",)
    """on those without these elements"""
    dataset_partial_n_tasks: int = 64
    """on the first so many of them"""

    def config(self, folder: Path | None = None) -> DatasetConfig:
        return dataclasses.replace(
            super().config(folder),
            partial_use=self.dataset_partial_use,
            partial_remove_elems=self.dataset_partial_remove_elems,
            partial_n_tasks=self.dataset_partial_n_tasks,
        )


@dataclass(frozen=True)
class AgentFlags:
    """Which agent."""

    algo: Algorithm = "iql"
    """the learner and its network"""
    exp: str = "full"
    """part of the output folder"""
    seed: int = 0
    """of networks, batches, actions and episodes"""
    results_path: Path | None = None
    """where results are; default from config/paths.yaml"""

    @property
    def root(self) -> Path:
        from runtime.paths import machine_settings

        return self.results_path or machine_settings().results_path

    def folder(self, dataset: DatasetConfig, kind: str) -> Path:
        """Where the agent's results of a kind are."""
        return dataset.folder(self.root / kind, self.exp, self.algo)


@dataclass(frozen=True)
class TrainedFlags(AgentFlags):
    """Which trained agent."""

    base_path: str = "_offline_training"
    """folder of the trained agents, below results_path"""

    def checkpoint(self, dataset: DatasetConfig) -> Path:
        """Raises `ConfigError` for a `base_path` that is no name of a folder."""
        from pipeline.stages.offline import newest_checkpoint
        from runtime.paths import path_part

        return newest_checkpoint(self.folder(dataset, path_part("base_path", self.base_path)), self.seed)


@dataclass(frozen=True)
class TrainOfflineFlags(ConfigFlags):
    """How an agent is trained."""

    config: Path | None = None
    """YAML file with any part of MultitaskConfig, see config/multitask/"""
    max_timesteps: Annotated[int, alias("train_steps")] = setting(300_000)
    """gradient steps"""
    batch_per_task: int = 256
    """a batch has so many rows per training task"""


@dataclass(frozen=True)
class FineTuneFlags(EvaluatedFlags):
    """How long an agent goes on learning, and how it is evaluated."""

    max_timesteps: Annotated[int, alias("n_steps")] = setting(500_000)
    """steps of the environment"""
    learning_starts: Annotated[int, alias("update_start_step")] = setting(20_000)
    """step of the first update; until then the offline policy acts"""
    batch_size: int = setting(256)
    """transitions per update"""
    eval_freq: int = setting(50_000)
    """steps between evaluations"""
    horizon: int = setting(500)
    """control steps per episode"""


_CLONING = AgentFlags(algo="bc")


def train_offline(
    split: DatasetFlags,
    training: TrainOfflineFlags,
    which: AgentFlags = _CLONING,
    dataset_dir: Path | None = None,
    device: str = "auto",
) -> None:
    """Train on the expert sets of a split's training tasks; `key=value` works as well as `--key value`.

    Args:
        dataset_dir: root of the data; default from config/paths.yaml
        device: auto, cpu or cuda[:N]
    """
    from corl.multitask_config import MultitaskConfig
    from pipeline.stages.multitask import TrainMultitask
    from pipeline.stages.offline import newest_checkpoint
    from runtime import interrupt
    from runtime.logs import configure_logging

    dataset = split.config(dataset_dir)
    data = dataset.files()
    under = {"eval_freq": 0, "log_freq": 10_000, "batch_size": training.batch_per_task * len(data)}
    settings = training.load(MultitaskConfig, under, {"algorithm": which.algo})
    if training.prints(settings):
        return
    configure_logging()
    folder = which.folder(dataset, "_offline_training")
    with interrupt.honoured():
        TrainMultitask(data, (), settings, which.seed, folder, device=device)()
    print(f"checkpoint: {newest_checkpoint(folder, which.seed)}")


def evaluate_offline(
    split: DatasetFlags,
    which: TrainedFlags,
    horizon: Annotated[int, alias("n_steps")] = 500,
    n_episodes: Annotated[int, alias("n_trajs")] = 10,
    task_id: int = -1,
    get_train_results: bool = True,
) -> None:
    """Roll out the policy in all tasks and write the reward of every step, and success per task, as CSV.

    Args:
        horizon: control steps per episode
        n_episodes: episodes per task
        task_id: only the task of this number among the test tasks; -1: all
        get_train_results: the training tasks too
    """
    from pipeline.stages.offline import roll_out
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    for name, value, least in (("horizon", horizon, 1), ("n_episodes", n_episodes, 1), ("task_id", task_id, -1)):
        if value < least:
            raise ConfigError(f"--{name} {value}: expected at least {least}")
    configure_logging()
    dataset = split.config()
    tasks = dataset.tasks()
    if not get_train_results:
        tasks["train"] = []
    if task_id >= 0:
        if task_id >= len(tasks["test"]):
            raise ConfigError(f"--task_id {task_id}: the split has {len(tasks['test'])} test tasks")
        tasks = {"test": [tasks["test"][task_id]]}
    if not any(tasks.values()):
        raise ConfigError("--no_get_train_results: the split has no other tasks than training tasks")
    checkpoint = which.checkpoint(dataset)
    folder = which.folder(dataset, f"_evaluation/{which.base_path}") / f"task_{task_id}"
    rates = roll_out(checkpoint, tasks, folder, n_steps=horizon, n_trajs=n_episodes, seed=which.seed)
    for group, rate in rates.items():
        print(f"{group} tasks: mean success {rate:.3f}")
    print(f"tables: {folder}")


def finetune(
    split: SplitFlags, which: TrainedFlags, training: FineTuneFlags, task_id: int = 0, device: str = "auto"
) -> None:
    """Go on learning in the simulator from an offline checkpoint; all of its networks and optimisers are kept.

    Args:
        task_id: number among the test tasks
        device: auto, cpu or cuda[:N]
    """
    from corl.online_config import OnlineConfig
    from pipeline.stages.offline import FineTune
    from runtime import interrupt
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    config = training.load(OnlineConfig, {"buffer_size": 500_000, "random_start": False, "task_ids": True})
    if training.prints(config):
        return
    configure_logging()
    dataset = split.config()
    tests = dataset.tasks()["test"]
    if not 0 <= task_id < len(tests):
        raise ConfigError(f"--task_id {task_id}: the split has {len(tests)} test tasks")
    folder = which.folder(dataset, "_finetune_training") / str(config.learning_starts) / f"task_{task_id}"
    stage = FineTune(tests[task_id], which.checkpoint(dataset), config, which.seed, folder, device=device)
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(f"{tests[task_id]}: {scores.last_solved}/{scores.episodes} solved after {scores.steps:,} steps")
    print(f"run: {folder}")


def parse_authors_flags(command: Callable[..., Any], argv: Sequence[str] | None = None) -> None:
    """`parse_flags` for what the data sets' authors wrote too: `key=value`."""
    parse_flags(command, key_values(sys.argv[1:] if argv is None else argv))


def key_values(arguments: Sequence[str]) -> list[str]:
    """`key=value` of the authors' programs as flags: `dataset.type=expert` is `--dataset_type expert`."""
    flags: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-") or not equals:
            flags.append(argument)
            continue
        name = key.replace(".", "_")
        if value in ("True", "true", "False", "false"):
            flags.append(f"--{name}" if value.lower() == "true" else f"--no-{name}")
        elif value.startswith("["):
            flags += [f"--{name}", *[item.strip() for item in value.strip("[]").split(",") if item.strip()]]
        elif value not in ("None", "null"):
            flags += [f"--{name}", value]
    return flags
