"""Offline training of one agent over a split of tasks.

Examples:
    python -m scripts.train_offline --algo cp_iql --dataset_split compositional --dataset_type medium
    python -m scripts.train_offline algo=cp_bc dataset.split=holdout dataset.holdout_elem=IIWA dataset.seed=3

The same command run again continues where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.commands.offline import Algorithm, DatasetFlags
from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    split: DatasetFlags,
    algo: Algorithm = "bc",
    exp: str = "full",
    train_steps: int = 300_000,
    seed: int = 0,
    batch_per_task: int = 256,
    dataset_dir: Path | None = None,
    config: Path | None = None,
    results_path: Path | None = None,
    device: str = "auto",
) -> None:
    """Train on the expert sets of a split's training tasks; `key=value` works as well as `--key value`.

    Args:
        algo: the learner and its network
        exp: part of the output folder
        train_steps: gradient steps
        seed: of networks and batches
        batch_per_task: a batch has so many rows per training task
        dataset_dir: root of the data; default from config/paths.yaml
        config: YAML file with any part of MultitaskConfig
        results_path: where _offline_training goes; default from config/paths.yaml
        device: auto, cpu or cuda[:N]
    """
    from corl.multitask_config import MultitaskConfig
    from pipeline.stages.multitask import TrainMultitask
    from pipeline.stages.offline import newest_checkpoint
    from runtime import interrupt
    from runtime.config import from_mapping, merge, read_yaml
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings

    configure_logging()
    dataset = split.config(dataset_dir)
    data = dataset.files()
    values = {"eval_freq": 0, "log_freq": 10_000, "batch_size": batch_per_task * len(data)}
    values = merge(values, read_yaml(config) if config else {}) | {"algorithm": algo, "max_timesteps": train_steps}
    settings = from_mapping(MultitaskConfig, values, source=str(config) if config else "flags")
    folder = dataset.folder((results_path or machine_settings().results_path) / "_offline_training", exp, algo)
    with interrupt.honoured():
        TrainMultitask(data, (), settings, seed, folder, device=device)()
    print(f"checkpoint: {newest_checkpoint(folder, seed)}")


if __name__ == "__main__":
    from pipeline.stages.offline import key_values

    run_main(lambda: parse_flags(main, key_values(sys.argv[1:])))
