"""Which tasks give expert data and which are held out: split files and seeded splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offline_compositional_rl_datasets.task import AXES, Task, all_tasks
from runtime.atomic import read_json, write_json
from runtime.errors import ConfigError, DataError, TaskError
from runtime.paths import path_part


@dataclass(frozen=True)
class Split:
    """Ordered tasks; the first ones of `train` give expert data. `expert` only in splits of the kind compositional."""

    train: tuple[Task, ...]
    test: tuple[Task, ...]
    expert: tuple[Task, ...] = ()

    def first(self, num_train: int) -> tuple[Task, ...]:
        """The first `num_train` training tasks. Raises `ConfigError` where there are not so many."""
        if not 1 <= num_train <= len(self.train):
            raise ConfigError(f"--num_train {num_train}: expected 1 to {len(self.train)}, the split's train tasks")
        return self.train[:num_train]


def split_file(tasks_path: Path, kind: str, seed: int, holdout_elem: str | None = None) -> Path:
    """Raises `ConfigError` for a kind or an element that is no name."""
    path_part("experiment_type", kind)
    if holdout_elem:
        path_part("holdout_elem", holdout_elem)
    prefix = f"{holdout_elem}_" if holdout_elem else ""
    return Path(tasks_path) / kind / f"{prefix}split_{seed}.json"


def load_split(tasks_path: Path, kind: str, seed: int, holdout_elem: str | None = None) -> Split:
    """A split from `<tasks_path>/<kind>/split_<seed>.json`.

    Raises `DataError` for a missing or malformed file and `TaskError` for an unknown element.
    """
    path = split_file(tasks_path, kind, seed, holdout_elem)
    if not path.exists():
        kinds = sorted(folder.name for folder in Path(tasks_path).glob("*") if folder.is_dir())
        raise DataError(f"{path}: no such split file; kinds in {tasks_path}: {', '.join(kinds) or 'none'}")
    content = read_json(path)
    if not isinstance(content, dict) or not {"train", "test"} <= set(content):
        raise DataError(f"{path}: expected an object with the lists train and test")
    lists = {}
    for key in ("train", "test", "expert"):
        try:
            lists[key] = tuple(Task(*elements) for elements in content.get(key, ()))
        except TypeError as error:
            raise DataError(f"{path}: {key} must list [robot, object, obstacle, objective]") from error
        except TaskError as error:
            raise DataError(f"{path}: {key}: {error}") from error
        if len(set(lists[key])) != len(lists[key]):
            raise DataError(f"{path}: {key} lists a task twice")
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise DataError(f"{path}: {min(both)} is in train and in test")
    both = set(lists["expert"]) & set(lists["test"])
    if both:
        raise DataError(f"{path}: {min(both)} is in expert and in test")
    return Split(**lists)


def save_split(path: Path, split: Split) -> None:
    content = {
        "train": [list(task.elements) for task in split.train],
        "test": [list(task.elements) for task in split.test],
    }
    if split.expert:
        content["expert"] = [list(task.elements) for task in split.expert]
    write_json(path, content)


def sample_tasks(
    experiment_type: str = "default",
    num_train: int = 1,
    smallscale_elem: str | None = None,
    holdout_elem: str | None = None,
    shuffling_seed: int | None = None,
    no_shuffle: bool = False,
) -> Split:
    """CompoSuite's seeded splits.

    `default`: the first `num_train` of all tasks, the rest held out. `smallscale`: the same among the tasks with
    `smallscale_elem`. `holdout`: num_train - 1 tasks without `holdout_elem`, then one with it; the other tasks with it
    are held out. Without a seed the order is random. Raises `ConfigError` for a value out of range.
    """
    tasks = all_tasks()
    if experiment_type == "smallscale":
        element = _element(smallscale_elem, "smallscale_elem")
        tasks = [task for task in tasks if element in task.elements]
    if not no_shuffle:
        # Python's own generator: the published splits are random.shuffle after random.seed(shuffling_seed).
        random.Random(shuffling_seed).shuffle(tasks)
    if experiment_type in ("default", "smallscale"):
        return _cut(tasks, num_train)
    if experiment_type == "holdout":
        element = _element(holdout_elem, "holdout_elem")
        having = [task for task in tasks if element in task.elements]
        lacking = [task for task in tasks if element not in task.elements]
        _check_range(num_train, 1, len(lacking) + 1)
        return Split((*lacking[: num_train - 1], having[0]), tuple(having[1:]))
    raise ConfigError(f"experiment_type {experiment_type!r}: expected default, smallscale or holdout")


def _cut(tasks: Sequence[Task], num_train: int) -> Split:
    _check_range(num_train, 0, len(tasks))
    return Split(tuple(tasks[:num_train]), tuple(tasks[num_train:]))


def _check_range(num_train: int, least: int, most: int) -> None:
    if not least <= num_train <= most:
        raise ConfigError(f"num_train {num_train}: expected {least} to {most}")


def _element(element: str | None, flag: str) -> str:
    elements = [name for names in AXES.values() for name in names]
    if element not in elements:
        raise ConfigError(f"{flag} {element!r}: expected one of {', '.join(elements)}")
    return element
