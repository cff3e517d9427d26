"""What the three command lines on offline data share: the flags `dataset_*`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.stages.offline import DatasetConfig

Algorithm = Literal["bc", "cp_bc", "iql", "cp_iql", "td3_bc", "transformer_td3_bc", "compositional_td3_bc"]


@dataclass(frozen=True)
class SplitFlags:
    """A split and its data."""

    dataset_task_list_path: Path | None = None
    """folder of the splits; default from config/paths.yaml"""
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
        from pipeline.stages.offline import DatasetConfig
        from runtime.paths import machine_settings

        machine = machine_settings()
        return DatasetConfig(
            folder or machine.data_path,
            self.dataset_task_list_path or machine.tasks_path,
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
