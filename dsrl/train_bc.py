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

from dsrl.flags import CloningFlags
from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    cloning: CloningFlags, wandb_project: str | None = None, wandb: Literal["offline", "online"] | None = None
) -> None:
    """Train on a Robomimic file; writes state_{epoch}.pt. The same command again continues.

    A flag overrides the file of settings.

    Args:
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
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

    task = cloning.task
    settings = load_task_config(DiffusionBCConfig, "bc", task, cloning.config, cloning.overrides())
    if cloning.prints(settings):
        return
    configure_logging()
    use_wandb(wandb_project, wandb)
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
