"""A run of the loop as a value: its configuration, folders, tasks and state. Nothing here runs or writes anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from envs.family import TaskFamily, find_family, is_installed
from offline_compositional_rl_datasets.task import Task
from pipeline.loop.config import Paths, PipelineConfig, load_pipeline_config
from pipeline.loop.selection import Threshold
from pipeline.loop.state import Iteration, LoopState
from pipeline.loop.state_file import load_state
from runtime.config import to_dict
from runtime.errors import ConfigError, DataError

T = TypeVar("T")


@dataclass(frozen=True)
class TaskSets:
    """Tasks with expert data, tasks that are generated but not reported (middle), and held-out tasks (test)."""

    train: tuple[Task, ...]
    middle: tuple[Task, ...]
    test: tuple[Task, ...]

    @property
    def generated(self) -> tuple[Task, ...]:
        return (*self.test, *self.middle)


def task_sets(family: TaskFamily[Any], config: PipelineConfig, splits_path: Path | None) -> TaskSets:
    """The first `num_train` tasks of the split's train list give data, the rest of it is middle."""
    split = family.split(config.experiment_type, config.task_list_seed, splits_path)
    if config.num_train > len(split.train):
        raise ConfigError(f"num_train {config.num_train}: the split has {len(split.train)} train tasks")
    sets = TaskSets(split.train[: config.num_train], split.train[config.num_train :], split.test)
    if not sets.test:
        raise ConfigError(f"experiment_type {config.experiment_type}: its split holds out no task")
    return sets


def _expect_parts(family: TaskFamily[Any], config: PipelineConfig) -> None:
    """Raises `ConfigError` where a family lacks what the configuration asks for, before anything runs."""
    needed = {"make_env": "policies are tried in it"}
    if config.collect is not None:
        needed["expert"] = "collect records it"
    for part, why in needed.items():
        if not family.has(part):
            raise ConfigError(f"family {family.name}: {part} is not written; {why}")


@dataclass(frozen=True)
class Run:
    """A run at one moment."""

    config: PipelineConfig
    paths: Paths
    tasks: TaskSets
    state: LoopState

    @classmethod
    def of(cls, config: PipelineConfig) -> Run:
        """Before its first iteration.

        Raises `ConfigError` for a split that is missing or too small, and where the family lacks what is asked for.
        """
        paths, family = config.paths.resolved(), find_family(config.family)
        _expect_parts(family, config)
        tasks = task_sets(family, config, paths.splits_path)
        threshold = Threshold(Decimal(str(config.success_threshold)))
        return cls(config, paths, tasks, LoopState(identity(config, tasks), threshold))

    def at(self, state: LoopState) -> Run:
        return dataclasses.replace(self, state=state)

    @property
    def family(self) -> TaskFamily[Any]:
        return find_family(self.config.family)

    @property
    def folder(self) -> Path:
        return self.paths.results_path / "loops" / self.config.run_name

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def lock_file(self) -> Path:
        return self.folder / "lock.json"

    @property
    def jobs_folder(self) -> Path:
        """Where every job has a folder, with its log."""
        return self.paths.logs_path / "slurm"

    @property
    def tables_folder(self) -> Path:
        """Where the tables are, and links to the logs of policies: named by the diffusion seed, as published."""
        return (
            self.paths.logs_path / "policies_slurm_logs" / f"policies_slurm_diffusionseed{self.config.diffusion_seed}"
        )

    @property
    def identity(self) -> dict[str, Any]:
        return identity(self.config, self.tasks)

    def seeds(self, task: Task) -> tuple[int, ...]:
        return self.config.rl_seeds if task in self.tasks.test else self.config.middle_seeds


def identity(config: PipelineConfig, tasks: TaskSets) -> dict[str, Any]:
    """What decides a run's results."""
    return config.identity | {"tasks": to_dict(dataclasses.asdict(tasks))}


def open_run(
    folder: Path, *, data_path: Path | None = None, logs_path: Path | None = None, family: str | None = None
) -> Run:
    """The run of a folder `<results>/loops/<run>`, to be read.

    Paths that are not given are the recorded ones. A family that is not installed has to be named by `family` as well:
    no module is imported because a file says so. Raises `DataError` where it is not the folder of a run, or of a run
    of another family.
    """
    folder = Path(folder).absolute()
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: not the folder of a run (no config.json); expected <results>/loops/<run>")
    paths = {"results_path": folder.parent.parent, "data_path": data_path, "logs_path": logs_path}
    config = load_pipeline_config(folder / "config.json", {"paths": paths})
    if config.family != family and not is_installed(config.family):
        raise DataError(
            f"{folder}: a run of the family {config.family}, expected it to be named here too, --family {config.family}"
        )
    return latest(Run.of(config))


def latest(run: Run) -> Run:
    """The run with the state that its file has now."""
    return run.at(load_state(run.state_file, run.family.parse)) if run.state_file.exists() else run


def found_in(run: Run, iteration: int | None, look: Callable[[Iteration], list[T]]) -> list[T]:
    """What is found in an iteration (None: in the last in which there is any); empty where there is none."""
    iterations = run.state.iterations if iteration is None else run.state.iterations[iteration : iteration + 1]
    return next((some for it in reversed(iterations) if (some := look(it))), [])
