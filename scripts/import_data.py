"""Bring data in: Minari, LeRobot v3.0 and Robomimic files become task files in the published layout, checked.

Examples:
    python -m scripts.import_data --format minari --source minari/composuite/IIWA_Box_None_PickPlace/expert-v0
    python -m scripts.import_data --format lerobot --source my_robot --dataset_type teleoperated
    python -m scripts.import_data --format robomimic --source low_dim.hdf5 --task IIWA_Box_None_Push \
        --keys object obstacle goal robot0_proprio
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.cli import parse_flags
from runtime.main import run_main


@dataclass(frozen=True)
class ReadingFlags:
    """What of a source is read, and as what."""

    task: str | None = None
    """the task that the data are of; by default the one that the data set names"""
    keys: tuple[str, ...] = ()
    """names of the observations that make the state, in the order of the layout"""
    filter_key: str = ""
    """of a Robomimic file: the mask whose demonstrations are read"""
    demonstrations: bool = False
    """of a LeRobot set without rewards: its episodes are solved by their last step"""


def main(
    format: Literal["minari", "lerobot", "robomimic"],
    source: Path,
    reading: ReadingFlags,
    data_path: Path | None = None,
    dataset_type: str = "expert",
    family: str = "composuite",
) -> None:
    """Write a file per task, all of them or none; print what the check says of each. Nothing is overwritten.

    Args:
        format: minari, lerobot (v3.0) or robomimic (low-dimensional HDF5)
        source: folder of a Minari or LeRobot data set, or a Robomimic file
        data_path: root of the data to write to; default: data_path of config/paths.yaml
        dataset_type: name of the kind of data, a part of the folder's name
        family: of the tasks, such as my_package.my_module:FAMILY
    """
    from envs.family import find_family
    from offline_compositional_rl_datasets.import_formats import find_trajectories
    from offline_compositional_rl_datasets.importing import write_tasks
    from runtime.paths import machine_settings

    tasks = find_family(family)
    found = find_trajectories(format, source, parse=tasks.parse, rate=tasks.steps_per_second(), **vars(reading))
    for report in write_tasks(found, data_path or machine_settings().data_path, dataset_type):
        print(
            f"{report.task}: {report.rows:,} rows, {report.episodes:,} episodes, success {report.success:.2f}, "
            f"return {report.mean_return:.1f}: {report.path}"
        )


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
