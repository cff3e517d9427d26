"""Evaluation of an agent of scripts.train_offline in the simulator.

Example:
    python -m scripts.evaluate_offline --algo cp_iql --dataset_split compositional --dataset_type medium
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.commands.offline import Algorithm, DatasetFlags
from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    split: DatasetFlags,
    algo: Algorithm = "iql",
    exp: str = "full",
    base_path: str = "_offline_training",
    n_steps: int = 500,
    n_trajs: int = 10,
    task_id: int = -1,
    get_train_results: bool = True,
    seed: int = 0,
    results_path: Path | None = None,
) -> None:
    """Roll out the policy in all tasks and write the reward of every step, and success per task, as CSV.

    Args:
        algo: as trained
        exp: as trained
        base_path: folder of the trained agents, below results_path
        n_steps: control steps per episode
        n_trajs: episodes per task
        task_id: only the task of this number among the test tasks; -1: all
        get_train_results: the training tasks too
        seed: of the trained agent and the episodes
        results_path: where results are; default from config/paths.yaml
    """
    from pipeline.stages.offline import newest_checkpoint, roll_out
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings, path_part

    for name, value, least in (("n_steps", n_steps, 1), ("n_trajs", n_trajs, 1), ("task_id", task_id, -1)):
        if value < least:
            raise ConfigError(f"--{name} {value}: expected at least {least}")
    configure_logging()
    dataset = split.config()
    tasks = dataset.tasks()
    if not get_train_results:
        tasks["train"] = []
    if task_id >= 0:
        if task_id >= len(tasks["test"]):
            raise ConfigError(f"--task_id {task_id}: the split has {len(tasks['test'])} test tasks")
        tasks = {"test": [tasks["test"][task_id]]}
    if not any(tasks.values()):
        raise ConfigError("--no_get_train_results: the split has no other tasks than training tasks")
    root = results_path or machine_settings().results_path
    path_part("base_path", base_path)
    checkpoint = newest_checkpoint(dataset.folder(root / base_path, exp, algo), seed)
    folder = dataset.folder(root / "_evaluation" / base_path, exp, algo) / f"task_{task_id}"
    rates = roll_out(checkpoint, tasks, folder, n_steps=n_steps, n_trajs=n_trajs, seed=seed)
    for group, rate in rates.items():
        print(f"{group} tasks: mean success {rate:.3f}")
    print(f"tables: {folder}")


if __name__ == "__main__":
    from pipeline.stages.offline import key_values

    run_main(lambda: parse_flags(main, key_values(sys.argv[1:])))
