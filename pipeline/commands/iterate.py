"""The loop's command line. The published entry points are this one program with other defaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.loop.run import Run

# Worker processes import their parent's script: the rest is imported where it is needed.


def loop_command(
    denoiser: str = "dit", num_train: int = 14, experiment_type: str = "component-wise"
) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags.

    The defaults given here lie under the configuration file as the file lies under the flags.
    """
    defaults = {"denoiser": denoiser, "num_train": num_train, "experiment_type": experiment_type}

    def main(
        max_iterations: int | None = None,
        config: Path | None = None,
        cluster: Literal["auto", "slurm", "local"] | None = None,
        denoiser: str | None = None,
        num_train: int | None = None,
        task_list_seed: int | None = None,
        diffusion_seed: int | None = None,
        curriculum_seed: int | None = None,
        success_threshold: float | None = None,
        threshold_reduction_amount: float | None = None,
        threshold_reduction_cycle: int | None = None,
        min_threshold: float | None = None,
        practice_rounds: int | None = None,
        practice_control_steps: int | None = None,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        retry_memory_multiplier: float | None = None,
        retry_time_multiplier: float | None = None,
        max_memory_gb: int | None = None,
        max_time_hours: float | None = None,
        data_path: Path | None = None,
        results_path: Path | None = None,
        logs_path: Path | None = None,
        config_file: Path | None = None,
        wandb_project: str | None = None,
        wandb: Literal["offline", "online"] | None = None,
        dry_run: bool = False,
    ) -> None:
        """Train the generator, generate data for unseen tasks, validate it in the simulator, keep what is good; repeat.

        A flag overrides the configuration file. The defaults in brackets are those without a file.

        Args:
            max_iterations: iterations 0 .. max-1 [5]
            config: YAML file with any part of the configuration, see config/pipeline/
            cluster: where jobs run; auto is SLURM where sbatch is found, else this machine [auto]
            denoiser: the generator's network [{denoiser}]
            num_train: the first so many train tasks of the split give expert data [{num_train}]
            task_list_seed: which split file [0]
            diffusion_seed: seed of the generator's training and sampling [0]
            curriculum_seed: seed of the order in which source sets are used from iteration 5 on [0]
            success_threshold: a generated set is good if its policy's success is above this [0.8]
            threshold_reduction_amount: how far the threshold is lowered when nothing is good [0.1]
            threshold_reduction_cycle: after so many iterations in a row without a good set [1]
            min_threshold: never below this [0.5]
            practice_rounds: of practice in the simulator on tasks that their generated sets do not solve; 0: none [0]
            practice_control_steps: at most so many a task and iteration [100000]
            max_retries: of one job [100]
            retry_delay: seconds before a job is tried again [300]
            retry_memory_multiplier: more memory after a job ran out of it [1.5]
            retry_time_multiplier: more time after a job ran out of it [1.5]
            max_memory_gb: cap on a job's memory [400]
            max_time_hours: cap on a job's time [72]
            data_path: expert data; default from config/paths.yaml
            results_path: where results go; default from config/paths.yaml
            logs_path: where job logs and tables go; default from config/paths.yaml
            config_file: the same as config
            wandb_project: send metrics to this W&B project as well
            wandb: offline (uploaded later by wandb sync) or online [offline]
            dry_run: say what is done and what would be done next, and do nothing
        """
        from pipeline.loop.config import load_pipeline_config
        from pipeline.loop.run import Run
        from runtime.errors import ConfigError
        from runtime.logs import configure_logging
        from runtime.wandb_sink import use_wandb

        if config and config_file:
            raise ConfigError("--config and --config_file name the same thing: give one of them")
        flags = {
            "max_iterations": max_iterations,
            "denoiser": denoiser,
            "num_train": num_train,
            "task_list_seed": task_list_seed,
            "diffusion_seed": diffusion_seed,
            "curriculum_seed": curriculum_seed,
            "success_threshold": success_threshold,
            "threshold_reduction_amount": threshold_reduction_amount,
            "threshold_reduction_cycle": threshold_reduction_cycle,
            "min_threshold": min_threshold,
            "practice": {"rounds": practice_rounds, "control_steps": practice_control_steps},
            "cluster": {"kind": cluster},
            "paths": {"data_path": data_path, "results_path": results_path, "logs_path": logs_path},
            "retry": {
                "max_retries": max_retries,
                "retry_delay": retry_delay,
                "retry_memory_multiplier": retry_memory_multiplier,
                "retry_time_multiplier": retry_time_multiplier,
                "max_memory_gb": max_memory_gb,
                "max_time_hours": max_time_hours,
            },
        }
        configure_logging()
        use_wandb(wandb_project, wandb)
        run = Run.of(load_pipeline_config(config or config_file, flags, defaults))
        if dry_run:
            from pipeline.results.status import plan

            print(plan(run))
            return
        watched(run)

    main.__doc__ = main.__doc__.format(**defaults)
    return main


def watched(run: Run) -> Run:
    """Carry a run to its end, with its tables and its page."""
    from pipeline.loop.runner import carry_out
    from pipeline.report.page import Page
    from pipeline.results.tables import Tables

    return carry_out(run, (Tables(), Page()))
