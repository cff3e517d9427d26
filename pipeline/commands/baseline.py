"""The command lines of the multitask baselines: one program with two networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.commands.cluster_flags import DEFAULT, ClusterFlags

# Worker processes import their parent's script: the rest is imported where it is needed.


def baseline_command(network: Literal["transformer", "compositional"]) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags."""
    published_batch = {"transformer": 1792, "compositional": 3584}[network]

    def main(
        num_train: int = 14,
        seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
        memory: int = 32,
        time: float = 24,
        max_timesteps: int | None = None,
        batch_size: int | None = None,
        eval_freq: int | None = None,
        n_eval_episodes: int | None = None,
        config: Path | None = None,
        experiment_type: str = "component-wise",
        task_list_seed: int = 0,
        task_list_path: Path | None = None,
        dataset_type: str = "expert",
        data_path: Path | None = None,
        results_path: Path | None = None,
        logs_path: Path | None = None,
        device: str = "auto",
        site: ClusterFlags = DEFAULT,
        gpus: int = 1,
        cpus: int = 8,
        max_retries: int = 100,
        retry_delay: float = 300,
    ) -> None:
        """Train one agent on all training tasks, one job per seed, and write the table of the held-out tasks.

        The same command run again continues where it was stopped. The defaults in brackets are those without a file.

        Args:
            num_train: the first so many train tasks of the split give data
            seeds: one agent each
            memory: GB per job
            time: hours per job
            max_timesteps: gradient steps [50000]
            batch_size: rows per step [{batch}]
            eval_freq: steps between evaluations on the held-out tasks [5000]
            n_eval_episodes: per task and evaluation [10]
            config: YAML file with any part of MultitaskConfig, see config/multitask/
            experiment_type: kind of split
            task_list_seed: which split file
            task_list_path: folder of the splits; default from config/paths.yaml
            dataset_type: expert, medium, random or medium-replay-subsampled
            data_path: root of the data; default from config/paths.yaml
            results_path: where results go; default from config/paths.yaml
            logs_path: where job logs go; default from config/paths.yaml
            device: auto, cpu or cuda[:N]
            gpus: per job
            cpus: per job
            max_retries: of one job
            retry_delay: seconds before a job is tried again
        """
        from corl.multitask import MultitaskConfig
        from offline_compositional_rl_datasets.hdf5 import find_task_file
        from offline_compositional_rl_datasets.splits import load_split
        from pipeline.loop.config import Resources, RetryConfig
        from pipeline.stages.multitask import TrainMultitask, run_seeds
        from runtime.config import from_mapping, given, merge, read_yaml
        from runtime.errors import distinct
        from runtime.logs import configure_logging
        from runtime.paths import machine_settings

        distinct("--seeds", seeds)
        defaults = {"algorithm": f"{network}_td3_bc", "batch_size": published_batch}
        flags = {
            "max_timesteps": max_timesteps,
            "batch_size": batch_size,
            "eval_freq": eval_freq,
            "n_eval_episodes": n_eval_episodes,
        }
        values = merge(merge(defaults, read_yaml(config) if config else {}), given(flags))
        settings = from_mapping(MultitaskConfig, values, source=str(config) if config else "flags")
        machine = machine_settings()
        split = load_split(task_list_path or machine.tasks_path, experiment_type, task_list_seed)
        root = data_path or machine.data_path
        data = tuple((task, find_task_file(root, dataset_type, task)) for task in split.first(num_train))
        name = f"{network}_baseline"
        folder = (results_path or machine.results_path) / name
        configure_logging()
        stages = [
            TrainMultitask(data, split.test, settings, seed, folder / f"seed_{seed}", device=device) for seed in seeds
        ]
        run_seeds(
            stages,
            Resources(memory_gb=memory, hours=time, cpus=cpus, gpus=gpus),
            site.config(),
            RetryConfig(max_retries=max_retries, retry_delay=retry_delay),
            logs=(logs_path or machine.logs_path) / f"{name}_logs",
            table=folder / f"{name}_results.csv",
        )

    main.__doc__ = main.__doc__.format(batch=published_batch)
    return main
