"""What the three command lines on offline data share: flags `dataset_*` and where results are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.offline import DatasetConfig

Algorithm = Literal["bc", "cp_bc", "iql", "cp_iql", "td3_bc", "transformer_td3_bc", "compositional_td3_bc"]


def dataset_of(
    dataset_dir: Path | None,
    dataset_task_list_path: Path | None,
    dataset_split: str,
    dataset_type: str,
    dataset_seed: int,
    dataset_holdout_elem: str | None,
    dataset_partial_use: bool = False,
    dataset_partial_remove_elems: tuple[str, ...] = ("IIWA",),
    dataset_partial_n_tasks: int = 64,
) -> DatasetConfig:
    """The configuration that the flags stand for; folders that are not given come from config/paths.yaml."""
    from pipeline.offline import DatasetConfig
    from runtime.paths import machine_settings

    machine = machine_settings()
    return DatasetConfig(
        dataset_dir or machine.data_path,
        dataset_task_list_path or machine.tasks_path,
        dataset_split,
        dataset_type,
        dataset_seed,
        dataset_holdout_elem,
        dataset_partial_use,
        dataset_partial_remove_elems,
        dataset_partial_n_tasks,
    )
