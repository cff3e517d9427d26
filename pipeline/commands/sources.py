"""Accepted sets on a command line: `RUN:TASK,TASK`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offline_compositional_rl_datasets.task import Task
from runtime.checks import distinct
from runtime.errors import ConfigError


def parse_sources(items: Sequence[str], parse: Callable[[str], Task]) -> dict[int, tuple[Task, ...]]:
    """Iteration -> tasks; `parse` gives the task of a name.

    Raises `ConfigError` for an item of another form or a set given twice, `TaskError` for an unknown task.
    """
    sources: dict[int, tuple[Task, ...]] = {}
    for item in items:
        run, colon, names = item.partition(":")
        if not colon or not run.isdigit() or not names:
            raise ConfigError(f"--source_tasks {item!r}: expected RUN:TASK,TASK, for example 0:IIWA_Box_None_Push")
        tasks = tuple(parse(name) for name in names.split(","))
        sources[int(run)] = (*sources.get(int(run), ()), *tasks)
    for iteration, tasks in sources.items():
        distinct(f"--source_tasks {iteration}:", tasks)
    return sources
