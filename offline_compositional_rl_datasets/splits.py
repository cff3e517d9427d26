"""Which tasks give expert data and which are held out: split files and seeded splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offline_compositional_rl_datasets.task import Task
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


def split_file(folder: Path, kind: str, seed: int, holdout_elem: str | None = None) -> Path:
    """Raises `ConfigError` for a kind or an element that is no name."""
    path_part("experiment_type", kind)
    if holdout_elem:
        path_part("holdout_elem", holdout_elem)
    prefix = f"{holdout_elem}_" if holdout_elem else ""
    return Path(folder) / kind / f"{prefix}split_{seed}.json"


def load_split(task_class: type[Task], folder: Path, kind: str, seed: int, holdout_elem: str | None = None) -> Split:
    """A split of such tasks from `<folder>/<kind>/split_<seed>.json`.

    Raises `DataError` for a missing or malformed file and `TaskError` for an unknown element.
    """
    path = split_file(folder, kind, seed, holdout_elem)
    if not path.exists():
        kinds = sorted(path.name for path in Path(folder).glob("*") if path.is_dir())
        raise DataError(f"{path}: no such split file; kinds in {folder}: {', '.join(kinds) or 'none'}")
    content = read_json(path)
    if not isinstance(content, dict) or not {"train", "test"} <= set(content):
        raise DataError(f"{path}: expected an object with the lists train and test")
    lists = {}
    for key in ("train", "test", "expert"):
        try:
            lists[key] = tuple(task_class(*elements) for elements in content.get(key, ()))
        except TypeError as error:
            raise DataError(f"{path}: {key} must list [{', '.join(task_class.axes())}]") from error
        except TaskError as error:
            raise DataError(f"{path}: {key}: {error}") from error
        if len(set(lists[key])) != len(lists[key]):
            raise DataError(f"{path}: {key} lists a task twice")
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise DataError(f"{path}: {min(both, key=lambda task: task.elements)} is in train and in test")
    both = set(lists["expert"]) & set(lists["test"])
    if both:
        raise DataError(f"{path}: {min(both, key=lambda task: task.elements)} is in expert and in test")
    return Split(**lists)


def save_split(path: Path, split: Split) -> None:
    content = {
        "train": [list(task.elements) for task in split.train],
        "test": [list(task.elements) for task in split.test],
    }
    if split.expert:
        content["expert"] = [list(task.elements) for task in split.expert]
    write_json(path, content)


def covering_split(tasks: Sequence[Task], seed: int) -> Split:
    """Half of the tasks held out, drawn from a seed; whatever elements there are, training tasks have them all.

    The first training tasks, as few as a greedy choice finds, show every element of every axis.
    """
    order = list(tasks)
    random.Random(f"split {seed}").shuffle(order)
    unseen = {pair for task in order for pair in zip(task.axes(), task.elements, strict=True)}
    cover: list[Task] = []
    while unseen:
        shown = [{pair for pair in zip(task.axes(), task.elements, strict=True) if pair in unseen} for task in order]
        best = max(range(len(order)), key=lambda i: (len(shown[i]), -i))
        cover.append(order.pop(best))
        unseen -= shown[best]
    train = max(len(cover), (len(tasks) + 1) // 2)
    tests = order[train - len(cover) :]
    return Split((*cover, *order[: train - len(cover)]), tuple(tests))
