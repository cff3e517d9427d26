"""Which tasks give expert data, and where it is: flags of the commands that learn without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from runtime.flags import alias

if TYPE_CHECKING:
    from offline_compositional_rl_datasets.splits import Split
    from offline_compositional_rl_datasets.task import Task

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class ExpertFlags:
    """A split, and the data of its training tasks."""

    family: str = "composuite"
    """of the tasks, such as my_package.my_module:FAMILY"""
    num_train: int = 14
    """the first so many train tasks of the split give data"""
    experiment_type: str = "component-wise"
    """kind of split"""
    task_list_seed: int = 0
    """which split file"""
    splits_path: Annotated[Path | None, alias("tasks_path", "task_list_path")] = None
    """folder of the splits; default: the family's published ones"""
    dataset_type: str = "expert"
    """expert, medium, random or medium-replay-subsampled"""
    data_path: Path | None = None
    """root of the data; default from config/paths.yaml"""

    def split(self) -> Split:
        from envs.family import find_family

        return find_family(self.family).split(self.experiment_type, self.task_list_seed, self.splits_path)

    def files(self) -> tuple[tuple[Task, Path], ...]:
        """The training tasks, each with its file. Raises `DataError` for the first that is missing."""
        from envs.family import find_family
        from runtime.paths import machine_settings

        root, family = self.data_path or machine_settings().data_path, find_family(self.family)
        tasks = self.split().first(self.num_train)
        return tuple((task, family.data_file(root, self.dataset_type, task)) for task in tasks)
