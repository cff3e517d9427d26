"""CompoSuite's splits and those of the data sets' authors: read where there is a file, else drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from offline_compositional_rl_datasets.composuite import AXES, CompoSuiteTask, all_tasks, tasks_of
from offline_compositional_rl_datasets.splits import Split, load_split, split_file
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError

PUBLISHED = Path(__file__).parent / "_train_test_splits"
"""Folder of the split files that come with the data sets."""

KINDS = ("default", "compositional", "holdout", "component-wise")

_EXPERT_PER_ROBOT, _HOLDOUT_TRAIN, _COVERING = 19, 56, 14


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


def _cut(tasks: Sequence[CompoSuiteTask], num_train: int) -> Split:
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


def draw_split(kind: str, seed: int, holdout_elem: str | None = None, *, robot: str = "IIWA") -> Split:
    """The split of a kind that a seed stands for.

    `default`: seven eighths of all tasks to train (CompoSuite: 224), the others (32) held out. `compositional`: the
    same, and 19 training tasks per robot (76) are those with expert data. `holdout`: 56 training tasks of which exactly
    one has `holdout_elem`; the others with it (63) are held out. `component-wise`: half of one robot's tasks (32) and
    the other half, such that the first 14 training tasks show every element of the other axes. Raises `ConfigError` for
    an unknown kind, a holdout without its element, or an axis of more elements than 14 tasks can show.
    """
    if holdout_elem and kind in KINDS and kind != "holdout":
        raise ConfigError(f"holdout_elem {holdout_elem!r}: a split of the kind {kind} holds out no element")
    if kind == "default":
        return _default(seed)
    if kind == "compositional":
        return _compositional(seed)
    if kind == "holdout":
        return sample_tasks("holdout", _HOLDOUT_TRAIN, holdout_elem=holdout_elem, shuffling_seed=seed)
    if kind == "component-wise":
        return _component_wise(seed, robot)
    raise ConfigError(f"split {kind!r}: expected one of {', '.join(KINDS)}")


def _default(seed: int) -> Split:
    return sample_tasks("default", len(all_tasks()) * 7 // 8, shuffling_seed=seed)


def _compositional(seed: int) -> Split:
    split = _default(seed)
    generator = random.Random(f"expert {seed}")
    expert: list[Task] = []
    for robot in AXES["robot"]:
        expert += generator.sample([task for task in split.train if robot in task.elements], _EXPERT_PER_ROBOT)
    return Split(split.train, split.test, tuple(expert))


def _component_wise(seed: int, robot: str) -> Split:
    tasks, generator = tasks_of(robot), random.Random(f"component-wise {seed}")
    shown = {axis: elements for axis, elements in AXES.items() if axis != "robot"}
    for axis, elements in shown.items():
        if len(elements) > _COVERING:
            raise ConfigError(f"component-wise split: {_COVERING} tasks cannot show {len(elements)} of the axis {axis}")
    wanted = {element for elements in shown.values() for element in elements}
    while True:
        generator.shuffle(tasks)
        if wanted <= {element for task in tasks[:_COVERING] for element in task.elements}:
            half = len(tasks) // 2
            return Split(tuple(tasks[:half]), tuple(tasks[half:]))


def find_split(folder: Path, kind: str, seed: int, holdout_elem: str | None = None) -> Split:
    """The published or own file of a split where there is one, else the drawn one of its kind.

    Raises as `load_split` and `draw_split` do.
    """
    if split_file(folder, kind, seed, holdout_elem).exists() or kind not in KINDS:
        return load_split(CompoSuiteTask, folder, kind, seed, holdout_elem)
    return draw_split(kind, seed, holdout_elem)


def get_task_list(
    base_path: Path, dataset_type: str, split: str, holdout_elem: str | None, seed: int
) -> tuple[str, list[Task], list[Task] | None, list[Task]]:
    """(name, train, expert or None, test) under the data sets' authors' name; expert tasks are taken out of train."""
    found = find_split(Path(base_path), split, seed, holdout_elem)
    parts = [dataset_type, *([holdout_elem] if holdout_elem else []), split, str(seed)]
    if split != "compositional":
        return "_".join(parts), list(found.train), None, list(found.test)
    train = [task for task in found.train if task not in found.expert]
    return "_".join(parts), train, list(found.expert), list(found.test)


def get_partial_task_list(
    task_list: Sequence[Task], remove_elems: Sequence[str], n_tasks: int
) -> tuple[list[Task], list[Task]]:
    """The first `n_tasks` tasks without any of the elements, and the tasks that have one."""
    kept = [task for task in task_list if not set(remove_elems) & set(task.elements)]
    removed = [task for task in task_list if set(remove_elems) & set(task.elements)]
    return kept[:n_tasks], removed
