"""Check a data folder: is every file that a split needs there and fit for use, and how good is it?

Examples:
    python -m scripts.check_data --robot IIWA
    python -m scripts.check_data --data_path ~/composuite --split component-wise --task_list_seed 0
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    robot: str = "",
    tasks: list[str] = [],  # noqa: B006 - tyro reads the default
    split: str = "",
    task_list_seed: int = 0,
    data_path: Path | None = None,
    dataset_type: str = "expert",
    json: Path | None = None,
    family: str = "composuite",
    splits_path: Path | None = None,
) -> int:
    """Print a table: rows, episodes, success at an episode's end, mean return, and what is wrong; exit 1 on a fault.

    Data of `collect_expert_data` has an episode from one shove to the next; for it, the figures of whole runs follow.

    Args:
        robot: check all tasks of this robot (of a family that has some)
        tasks: or just these
        split: or the training tasks of a split of this kind, e.g. component-wise
        task_list_seed: number of the split file
        data_path: root of the data; default: data_path of config/paths.yaml
        dataset_type: expert, medium, random or medium-replay-subsampled
        json: file for the figures
        family: of the tasks, such as my_package.my_module:FAMILY
        splits_path: folder of the splits; default: the family's published ones
    """
    import dataclasses

    from envs.family import find_family
    from offline_compositional_rl_datasets.check import check_folder
    from runtime.atomic import write_json
    from runtime.errors import ConfigError
    from runtime.paths import machine_settings

    if sum(map(bool, (robot, tasks, split))) != 1:
        raise ConfigError("expected one of --robot, --tasks and --split")
    settings, found = machine_settings(), find_family(family)
    if split:
        chosen = list(found.split(split, task_list_seed, splits_path).train)
    else:
        chosen = [found.parse(name) for name in tasks] or found.tasks_with("robot", robot)
    reports = check_folder(data_path or settings.data_path, dataset_type, chosen)
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
