"""Stage 2 by hand: generate data of tasks from a trained generator.

Example:
    python -m scripts.generate_augmented_data_dits --num_train 14 --target_task IIWA_Box_None_PickPlace
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    num_train: int | None = None,
    config: Path | None = None,
    base_results_folder: Path | None = None,
    denoiser: str | None = None,
    task_list_path: Path | None = None,
    task_list_seed: int | None = None,
    experiment_type: str | None = None,
    seed: int | None = None,
    diffusion_training_run: int = 0,
    target_task: str | None = None,
    device: str | None = None,
) -> None:
    """Draw the sample files of one task or of all held-out tasks. No expert data is read.

    What is not given comes from --config, else it is what the published code takes.

    Args:
        num_train: part of the generator's name
        config: YAML file of the pipeline, for sampler and number of samples
        base_results_folder: where results are; default from config/paths.yaml
        denoiser: the generator's network
        task_list_path: folder of the splits; default from config/paths.yaml
        task_list_seed: which split file
        experiment_type: kind of split
        seed: the diffusion seed
        diffusion_training_run: the iteration, part of the generator's name
        target_task: e.g. IIWA_Box_None_PickPlace; default: all held-out tasks
        device: auto, cpu or cuda[:N]
    """
    from pipeline.loop.config import load_pipeline_config
    from pipeline.loop.plan import generation_stages
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime.logs import configure_logging

    configure_logging()
    overrides = {
        "num_train": num_train,
        "denoiser": denoiser,
        "task_list_seed": task_list_seed,
        "experiment_type": experiment_type,
        "diffusion_seed": seed,
        "device": device,
        "paths": {"results_path": base_results_folder, "tasks_path": task_list_path},
    }
    run = Run.of(load_pipeline_config(config, overrides))
    targets = (run.family.parse(target_task),) if target_task else run.tasks.test
    for stage in generation_stages(run, Iteration(diffusion_training_run, targets, sources={}, phase=None)):
        stage()


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
