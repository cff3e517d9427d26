"""Between generation and validation, by hand: practise on a task in the simulator, labelled by its generator.

Example:
    python -m scripts.practise_on_generated_data --num_train 14 --target_task IIWA_Box_None_PickPlace --rounds 10
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    target_task: str,
    rounds: int | None = None,
    control_steps: int | None = None,
    num_train: int | None = None,
    config: Path | None = None,
    base_results_folder: Path | None = None,
    denoiser: str | None = None,
    task_list_path: Path | None = None,
    task_list_seed: int | None = None,
    experiment_type: str | None = None,
    seed: int | None = None,
    diffusion_training_run: int = 0,
    device: str | None = None,
) -> None:
    """Make a practised set of a task's generated one, beside it. No expert and no reward is used.

    What is not given comes from --config, else it is what the loop takes. Policies are trained on it by
    `scripts.train_augmented_policy --dataset_type practised`.

    Args:
        target_task: e.g. IIWA_Box_None_PickPlace
        rounds: of practice
        control_steps: at most so many in the simulator
        num_train: part of the generator's name
        config: YAML file of the pipeline, for practice and policies
        base_results_folder: where results are; default from config/paths.yaml
        denoiser: the generator's network
        task_list_path: folder of the splits; default from config/paths.yaml
        task_list_seed: which split file
        experiment_type: kind of split
        seed: the diffusion seed
        diffusion_training_run: the iteration, part of the generator's name
        device: auto, cpu or cuda[:N]
    """
    from pipeline.loop.config import load_pipeline_config
    from pipeline.loop.plan import practice_stages
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
        "practice": {"rounds": rounds, "control_steps": control_steps},
        "paths": {"results_path": base_results_folder, "tasks_path": task_list_path},
    }
    run = Run.of(load_pipeline_config(config, overrides))
    iteration = Iteration(diffusion_training_run, (run.family.parse(target_task),), sources={}, phase=None)
    for stage in practice_stages(run, iteration, iteration.targets):
        stage()


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
