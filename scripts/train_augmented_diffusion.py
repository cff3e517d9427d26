"""Stage 1 by hand: train the generator of one iteration.

Example:
    python -m scripts.train_augmented_diffusion --num_train 14 --diffusion_training_run 1 \\
        --source_tasks 0:IIWA_Box_None_PickPlace,IIWA_Box_None_Shelf
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    num_train: int | None = None,
    config: Path | None = None,
    base_data_path: Path | None = None,
    base_results_folder: Path | None = None,
    denoiser: str | None = None,
    task_list_path: Path | None = None,
    task_list_seed: int | None = None,
    dataset_type: str | None = None,
    experiment_type: str | None = None,
    seed: int | None = None,
    diffusion_training_run: int = 0,
    source_tasks: list[str] = [],  # noqa: B006 - tyro reads the default
    device: str | None = None,
    wandb_project: str | None = None,
    wandb: Literal["offline", "online"] | None = None,
) -> None:
    """Train the generator on the expert sets of the first `num_train` tasks and on accepted generated sets.

    What is not given comes from --config, else it is what the published code takes.

    Args:
        num_train: the first so many train tasks of the split give expert data
        config: YAML file of the pipeline, for the sizes of network and training
        base_data_path: expert data; default from config/paths.yaml
        base_results_folder: where results go; default from config/paths.yaml
        denoiser: the generator's network
        task_list_path: folder of the splits; default from config/paths.yaml
        task_list_seed: which split file
        dataset_type: first part of the data folder's name
        experiment_type: kind of split
        seed: of weights, batches and noise (the diffusion seed)
        diffusion_training_run: the iteration, part of the output's name
        source_tasks: generated sets to add, as RUN:TASK,TASK
        device: auto, cpu or cuda[:N]
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
    from pipeline.commands.sources import parse_sources
    from pipeline.loop.config import load_pipeline_config
    from pipeline.loop.plan import generator_stage
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime import interrupt
    from runtime.logs import configure_logging
    from runtime.wandb_sink import use_wandb

    configure_logging()
    use_wandb(wandb_project, wandb)
    overrides = {
        "num_train": num_train,
        "denoiser": denoiser,
        "task_list_seed": task_list_seed,
        "dataset_type": dataset_type,
        "experiment_type": experiment_type,
        "diffusion_seed": seed,
        "device": device,
        "paths": {
            "data_path": base_data_path,
            "results_path": base_results_folder,
            "tasks_path": task_list_path,
        },
    }
    run = Run.of(load_pipeline_config(config, overrides))
    sources = parse_sources(source_tasks, run.family.parse)
    iteration = Iteration(diffusion_training_run, targets=(), sources=sources, phase=None)
    with interrupt.honoured():
        generator_stage(run, iteration)()


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
