"""Stage 3 by hand: train a policy on one data set alone and measure it in the simulator.

Example, on generated data:
    python -m scripts.train_augmented_policy --robot IIWA --obj Box --obst None --subtask PickPlace --num_train 14

Example, on expert data:
    python -m scripts.train_augmented_policy --dataset_type expert --robot IIWA --obj Box --obst None --subtask Push
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    robot: str = "",
    obj: str = "",
    obst: str = "",
    subtask: str = "",
    task: str = "",
    config: Path | None = None,
    base_agent_data_path: Path | None = None,
    base_results_folder: Path | None = None,
    dataset_type: str = "synthetic",
    algorithm: str | None = None,
    max_timesteps: int | None = None,
    batch_size: int | None = None,
    n_episodes: int | None = None,
    seed: int = 0,
    denoiser: str | None = None,
    task_list_seed: int | None = None,
    num_train: int | None = None,
    diffusion_seed: int | None = None,
    diffusion_training_run: int = 0,
    device: str | None = None,
    wandb_project: str | None = None,
    wandb: Literal["offline", "online"] | None = None,
) -> None:
    """Train on generated data (`--dataset_type synthetic`), a practised set or a task's recorded data, and evaluate.

    What is not given comes from --config, else it is what the published code takes.

    Args:
        robot: such as IIWA; a wrong name is answered with the right ones
        obj: such as Box
        obst: such as ObjectWall, or None
        subtask: such as PickPlace
        task: or the task's name; of a family of one's own, which --config names, in this way alone
        config: YAML file of the pipeline, for the policy's training
        base_agent_data_path: recorded data; default from config/paths.yaml
        base_results_folder: where results go; default from config/paths.yaml
        dataset_type: synthetic, practised, or the first part of the data folder's name such as expert
        algorithm: td3_bc, iql or bc
        max_timesteps: gradient steps
        batch_size: transitions per step
        n_episodes: episodes per evaluation
        seed: the RL seed
        denoiser: the generator's network, part of its name
        task_list_seed: part of the generator's name
        num_train: part of the generator's name
        diffusion_seed: part of the generator's name
        diffusion_training_run: the iteration, part of the generator's name
        device: auto, cpu or cuda[:N]
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
    from envs.family import find_family
    from pipeline.loop.config import load_pipeline_config
    from pipeline.stages.paths import policy_folder, practised_file, samples_file
    from pipeline.stages.policy import TrainPolicy
    from runtime import interrupt
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.wandb_sink import use_wandb

    configure_logging()
    use_wandb(wandb_project, wandb)
    settings = load_pipeline_config(
        config,
        {
            "denoiser": denoiser,
            "task_list_seed": task_list_seed,
            "num_train": num_train,
            "diffusion_seed": diffusion_seed,
            "device": device,
            "policy": {
                "algorithm": algorithm,
                "max_timesteps": max_timesteps,
                "batch_size": batch_size,
                "n_episodes": n_episodes,
            },
            "paths": {"data_path": base_agent_data_path, "results_path": base_results_folder},
        },
    )
    family, parts = find_family(settings.family), (robot, obj, obst, subtask)
    if bool(task) == any(parts) or (any(parts) and not all(parts)):
        raise ConfigError("expected --robot, --obj, --obst and --subtask, or --task alone")
    chosen = family.parse(task or "_".join(parts))
    where = settings.paths.resolved()
    practised = dataset_type == "practised"
    synthetic = practised or dataset_type == "synthetic"
    if synthetic:
        model = settings.model_name(diffusion_training_run)
        data = samples_file(where.results_path, diffusion_training_run, model, chosen)
        data = practised_file(data) if practised else data
        folder = policy_folder(where.results_path, diffusion_training_run, model, chosen, seed, practised=practised)
    else:
        data = family.data_file(where.data_path, dataset_type, chosen)
        folder = where.results_path / dataset_type / f"seed_{settings.task_list_seed}" / f"{chosen.name}_RLseed{seed}"
    stage = TrainPolicy(
        task=chosen,
        data=data,
        synthetic=synthetic,
        policy=settings.policy,
        seed=seed,
        folder=folder,
        device=settings.device,
        episode_ends=settings.training.episode_ends,
        practised=practised,
    )
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(
        f"{chosen}: best evaluation {scores.best_solved}/{scores.episodes} solved, "
        f"best return {scores.best_return:.1f}; last {scores.last_solved}/{scores.episodes}, "
        f"return {scores.last_return:.1f}"
        + (f"; fresh episodes {scores.fresh_solved}/{scores.fresh_episodes}" if scores.fresh_episodes else "")
    )
    print(f"checkpoints and metrics: {folder}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
