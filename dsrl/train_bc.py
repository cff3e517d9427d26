"""Stage 1: clone demonstrations with a diffusion policy.

Example:
    python -m dsrl.train_bc --data_path datasets/lift/ph/low_dim_v141.hdf5 --save_dir checkpoints/bc/lift --task lift \\
        --pred_horizon 4 --diffusion_steps 100 --hidden_dims 1024 1024 1024 --epochs 3000
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    task: str = "lift",
    data_path: str | None = None,
    save_dir: str | None = None,
    config: Path | None = None,
    filter_key: str | None = None,
    num_demos: int | None = None,
    pred_horizon: int | None = None,
    relative_quaternion: str | None = None,
    env_check: bool | None = None,
    diffusion_steps: int | None = None,
    ddim_steps: int | None = None,
    spacing: str | None = None,
    hidden_dims: tuple[int, ...] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    save_every: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    wandb_project: str | None = None,
    wandb: Literal["offline", "online"] | None = None,
) -> None:
    """Train on a Robomimic file; writes state_{epoch}.pt. The same command again continues.

    What is not given comes from config/dsrl/bc_{task}.yaml.

    Args:
        task: lift, can, square, tool_hang, transport, or a MuJoCo task of gymnasium such as Hopper-v5
        data_path: HDF5 file; default: what is found under datasets/
        save_dir: folder of the checkpoints; default checkpoints/bc/{task}
        config: another YAML file of settings
        filter_key: mask of the demonstrations to learn from, such as train
        num_demos: take the first so many (0: all)
        pred_horizon: actions per chunk
        relative_quaternion: raw, six or drop
        env_check: refuse files of an environment that is not built here; else robosuite 1.4's usual one stands for it
        diffusion_steps: times of the noise schedule
        ddim_steps: sampling steps that evaluation takes by default
        spacing: leading or trailing sampling times
        hidden_dims: widths of the network's layers
        epochs: passes over the data
        batch_size: samples per gradient step
        learning_rate: at its highest
        save_every: epochs between checkpoints
        seed: of weights, order and noise
        device: auto, cpu or cuda[:N]
        precision: auto, float32 or bfloat16
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
    flags = {
        name: value for name, value in locals().items() if name not in ("config", "task", "wandb_project", "wandb")
    }
    from dsrl.behavior_cloning import train
    from dsrl.config import DiffusionBCConfig, load_task_config
    from dsrl.demos import read_demonstrations
    from dsrl.recorded_env import recorded_task
    from dsrl.tasks import standard_task
    from runtime import interrupt
    from runtime.device import pick_device
    from runtime.errors import ConfigError, DataError
    from runtime.logs import configure_logging
    from runtime.wandb_sink import use_wandb

    configure_logging()
    use_wandb(wandb_project, wandb)
    settings = load_task_config(DiffusionBCConfig, "bc", task, config, flags)
    data = read_demonstrations(settings.data_file, filter_key=settings.filter_key, num_demos=settings.num_demos)
    try:
        recorded = recorded_task(data, str(settings.data_file))
    except DataError:
        if settings.env_check:
            raise
        recorded = standard_task(task)
    if recorded.name != task:
        raise ConfigError(f"{settings.data_file}: demonstrations of the task {recorded.name!r}, not of {task!r}")
    with interrupt.honoured():
        last = train(data, recorded, settings, device=pick_device(settings.device))
    print(f"{task}: {len(data.lengths)} demonstrations, {len(data)} steps, checkpoint {last}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
