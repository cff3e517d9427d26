"""The trajectories of each task in a data set of one of the formats that can be imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from offline_compositional_rl_datasets.import_lerobot import lerobot_trajectories, open_lerobot
from offline_compositional_rl_datasets.import_minari import minari_trajectories, open_minari
from offline_compositional_rl_datasets.import_robomimic import robomimic_trajectories, steps_per_second
from offline_compositional_rl_datasets.importing import Trajectory
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError, DataError, TaskError

Format = Literal["minari", "lerobot", "robomimic"]


def find_trajectories(
    format: Format,
    source: Path,
    *,
    task: str | None = None,
    keys: Sequence[str] = (),
    filter_key: str = "",
    demonstrations: bool = False,
    parse: Callable[[str], Task],
    rate: float | None = None,
) -> list[tuple[Task, Iterator[Trajectory]]]:
    """Each task in `source` with its trajectories, which are read while they are taken.

    `task` is the task that all are of; None: the one that a LeRobot episode or a Minari data set's name has. `rate` are
    the tasks' control steps per second, None: not known. Raises `DataError` for what is not in the format or has
    another rate, `ConfigError` where no task is known or a flag is another format's, `TaskError` for a name that is no
    task.
    """
    if filter_key and format != "robomimic":
        raise ConfigError(f"--filter_key {filter_key}: is for robomimic files, not for {format}")
    if demonstrations and format != "lerobot":
        raise ConfigError(f"--demonstrations: is for lerobot data sets, not for {format}, which has rewards")
    given = None if task is None else parse(task)
    if format == "lerobot":
        dataset = open_lerobot(source)
        _expect_rate(dataset.fps, rate, source)
        if given is not None:
            return [(given, lerobot_trajectories(dataset, None, keys, demonstrations=demonstrations))]
        return [
            (_named(name, source, parse), lerobot_trajectories(dataset, name, keys, demonstrations=demonstrations))
            for name in dataset.tasks
        ]
    if format == "minari":
        minari = open_minari(source)
        found = given or _task_of_id(minari.spec.dataset_id, source, parse)
        return [(found, minari_trajectories(minari, str(source), keys))]
    if given is None:
        raise ConfigError("--task: expected the task that the robomimic file is of")
    if keys:  # or else nothing is read
        _expect_rate(steps_per_second(source), rate, source)
    return [(given, robomimic_trajectories(source, keys, filter_key))]


def _expect_rate(found: float | None, rate: float | None, source: Path) -> None:
    """Velocities and actions of another rate are other ones."""
    if found is not None and rate is not None and found != rate:
        raise DataError(f"{source}: {found:g} steps per second, expected the family's control_frequency, {rate:g}")


def _named(name: str, source: Path, parse: Callable[[str], Task]) -> Task:
    try:
        return parse(name)
    except TaskError as error:
        raise TaskError(f"{source}: {error}; --task says which it is") from error


def _task_of_id(dataset_id: str, source: Path, parse: Callable[[str], Task]) -> Task:
    """The task that is a part of a name such as `composuite/IIWA_Box_None_Push/expert-v0`."""
    for part in dataset_id.split("/"):
        try:
            return parse(part)
        except TaskError:
            continue
    raise ConfigError(f"{source}: its name {dataset_id!r} has no task; --task says which it is")
