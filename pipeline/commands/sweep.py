"""The command lines of the sweeps: one program with other prior data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.commands.cluster_flags import DEFAULT, ClusterFlags
from pipeline.commands.online import Variant

# Worker processes import their parent's script: the rest is imported where it is needed.


def sweep_command(variant: Variant, results: str) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags; tables go to `sac_exp/<results>`."""

    def main(
        seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
        tasks: tuple[str, ...] = (),
        config: Path | None = None,
        total_timesteps: int | None = None,
        num_envs: int | None = None,
        eval_freq: int | None = None,
        n_eval_episodes: int | None = None,
        base_synthetic_data_path: Path | None = None,
        data_path: Path | None = None,
        dataset_type: str = "expert",
        num_train: int = 14,
        experiment_type: str = "component-wise",
        task_list_seed: int = 0,
        exp_name: str = variant.exp_name,
        memory: int = 16,
        time: float = 48,
        cpus: int = 4,
        gpus: int = 1,
        site: ClusterFlags = DEFAULT,
        max_retries: int = 100,
        retry_delay: float = 300,
        cuda: bool = True,
        track: bool = False,
        wandb_project_name: str = variant.exp_name,
        runs_path: Path | None = None,
        results_path: Path | None = None,
        logs_path: Path | None = None,
    ) -> None:
        """Run tasks x seeds as jobs and write their tables. The same command run again continues.

        Args:
            seeds: runs per task
            tasks: names such as IIWA_Box_None_Push; default: the held-out tasks of the split
            config: YAML file with any part of OnlineConfig, see config/online/
            total_timesteps: steps of the environment [1000000]
            num_envs: environments side by side [1]
            eval_freq: steps between evaluations [100000]
            n_eval_episodes: episodes of an evaluation [10]
            base_synthetic_data_path: folder with <TASK>/samples_0.npz (prior data synthetic)
            data_path: root of expert data (prior data real); default from config/paths.yaml
            dataset_type: expert, medium, random or medium-replay-subsampled
            num_train: the first so many train tasks of the split give prior data
            experiment_type: kind of split
            task_list_seed: which split file
            exp_name: part of the runs' names
            memory: GB per job
            time: hours per job
            cpus: per job
            gpus: per job
            max_retries: of one job
            retry_delay: seconds before a job is tried again
            cuda: use a GPU where there is one
            track: log to Weights & Biases too, offline where there is no network
            wandb_project_name: its project
            runs_path: where runs go; default from config/paths.yaml
            results_path: where tables go; default from config/paths.yaml
            logs_path: where job logs go; default from config/paths.yaml
        """
        from corl.online_config import RUNTIME_SETTINGS
        from offline_compositional_rl_datasets.splits import load_split
        from offline_compositional_rl_datasets.task import Task
        from pipeline.commands.online import load_online_config
        from pipeline.loop.config import Resources, RetryConfig
        from pipeline.stages.online import LearnOnline, Tracking, real_prior, run_name, synthetic_prior
        from pipeline.sweeps.online import run_sweep
        from runtime.config import dict_without
        from runtime.errors import ConfigError, distinct
        from runtime.logs import configure_logging
        from runtime.paths import machine_settings

        distinct("--seeds", seeds)
        machine = machine_settings()
        flags = {
            "total_timesteps": total_timesteps,
            "num_envs": num_envs,
            "eval_freq": eval_freq,
            "n_eval_episodes": n_eval_episodes,
        }
        online = load_online_config(config, flags, variant)
        split = load_split(machine.tasks_path, experiment_type, task_list_seed)
        chosen = [Task.parse(name) for name in tasks] if tasks else list(split.test)
        distinct("--tasks", chosen)
        if variant.prior == "synthetic" and base_synthetic_data_path is None:
            raise ConfigError("--base_synthetic_data_path is missing: expected a folder with <TASK>/samples_0.npz")
        real = ()
        if variant.prior == "real":
            real = real_prior(data_path or machine.data_path, dataset_type, split.first(num_train))
        synthetic = variant.prior == "synthetic"
        root = base_synthetic_data_path if synthetic else None
        settings = {"exp_name": exp_name, "config": dict_without(online, RUNTIME_SETTINGS)}
        if real:
            settings |= {"dataset_type": dataset_type, "prior": [task.name for task, _ in real]}
        if root:
            settings |= {"prior": run_name(chosen[0], exp_name, 0, root).rpartition("__")[2]}
        configure_logging()
        stages = [
            LearnOnline(
                task=task,
                config=online,
                seed=seed,
                folder=(runs_path or machine.runs_path) / run_name(task, exp_name, seed, root),
                prior=synthetic_prior(root, task) if root else real,
                synthetic=synthetic,
                tracking=Tracking(wandb_project_name if track else None),
                device="auto" if cuda else "cpu",
            )
            for task in chosen
            for seed in seeds
        ]
        run_sweep(
            stages,
            Resources(memory_gb=memory, hours=time, cpus=cpus, gpus=gpus),
            site.config(),
            RetryConfig(max_retries=max_retries, retry_delay=retry_delay),
            logs=(logs_path or machine.logs_path) / "slurm",
            folder=(results_path or machine.results_path) / "sac_exp" / results,
            identity=settings,
        )

    return main
