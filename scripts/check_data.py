"""Check a data folder: is every file that a split needs there and fit for use, and how good is it?

Examples:
    python -m scripts.check_data --robot IIWA
    python -m scripts.check_data --data_path ~/composuite --split component-wise --task_list_seed 0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.tasks_flags import TasksFlags
from runtime.cli import parse_flags
from runtime.errors import ConfigError
from runtime.main import run_main

if TYPE_CHECKING:
    from offline_compositional_rl_datasets.task import Task


@dataclass(frozen=True)
class CheckedFlags(TasksFlags):
    """Tasks, or the training tasks of a split."""

    split: str = ""
    """or the training tasks of a split of this kind, e.g. component-wise"""
    task_list_seed: int = 0
    """number of the split file"""
    splits_path: Path | None = None
    """folder of the splits; default: the family's published ones"""

    def chosen(self) -> list[Task]:
        from envs.family import find_family

        if not self.split:
            return super().chosen()
        if self.tasks or self.robot or self.all_tasks:
            raise ConfigError("expected one of --tasks, --robot, --all_tasks and --split")
        return list(find_family(self.family).split(self.split, self.task_list_seed, self.splits_path).train)


def main(
    of: CheckedFlags, data_path: Path | None = None, dataset_type: str = "expert", json: Path | None = None
) -> int:
    """Print a table: rows, episodes, success at an episode's end, mean return, and what is wrong; exit 1 on a fault.

    Data of `collect_expert_data` has an episode from one shove to the next; for it, the figures of whole runs follow.

    Args:
        data_path: root of the data; default: data_path of config/paths.yaml
        dataset_type: expert, medium, random or medium-replay-subsampled
        json: file for the figures
    """
    import dataclasses

    from offline_compositional_rl_datasets.check import check_folder
    from runtime.atomic import write_json
    from runtime.paths import machine_settings

    reports = check_folder(data_path or machine_settings().data_path, dataset_type, of.chosen())
    print(f"{'task':38s} {'rows':>9s} {'episodes':>8s} {'success':>7s} {'return':>6s}  verdict")
    for report in reports:
        verdict = "; ".join(report.faults) or "fit for use"
        if report.run_success == report.run_success:
            verdict += f" (whole runs: success {report.run_success:.2f}, return {report.run_return:.0f})"
        figures = f"{report.rows:9,d} {report.episodes:8,d} {report.success:7.2f} {report.mean_return:6.0f}"
        print(f"{report.task.name:38s} {figures if report.episodes else '':33s}  {verdict}", flush=True)
    missing = [report.task.name for report in reports if report.path is None]
    faulty = [report.task.name for report in reports if report.path and report.faults]
    fit = len(reports) - len(missing) - len(faulty)
    print(f"{fit} of {len(reports)} fit for use, {len(missing)} missing, {len(faulty)} with faults")
    if json:
        rows = []
        for report in reports:
            row = {**dataclasses.asdict(report), "task": report.task.name, "path": report.path and str(report.path)}
            rows.append({key: None if value != value else value for key, value in row.items()})
        write_json(json, rows)
    return 1 if missing or faulty else 0


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
