"""Stage 2: steer the frozen policy by SAC in its noise space.

Example:
    python -m dsrl.train_dsrl --bc_checkpoint checkpoints/bc/lift/state_3000.pt --task lift --action_magnitude 1.0 \\
        --ddim_steps 10 --initial_steps 320000 --max_timesteps 100000 --utd 20
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsrl.flags import SteeringFlags
from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    bc_checkpoint: Path,
    steering: SteeringFlags,
    wandb_project: str | None = None,
    wandb: Literal["offline", "online"] | None = None,
) -> None:
    """Write sac_best.zip, metrics.jsonl and result.json, where the cloned policy stands beside the steered one.

    A flag overrides the file of settings. Steps are control steps of all environments together. The same command again
    continues a run that was killed or asked to stop (SIGTERM).

    Args:
        bc_checkpoint: state_{epoch}.pt of the cloned policy
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
    from dsrl.config import DSRLConfig, load_task_config
    from dsrl.curves import draw_steering
    from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
    from dsrl.steering import BEST, steer
    from runtime import interrupt
    from runtime.device import pick_device
    from runtime.logs import configure_logging
    from runtime.wandb_sink import use_wandb

    checkpoint = Checkpoint.read(bc_checkpoint)
    checkpoint.expect_task(steering.task)
    overrides = steering.overrides()
    settings = load_task_config(DSRLConfig, "dsrl", checkpoint.args["task"], steering.config, overrides)
    if steering.prints(settings):
        return
    configure_logging()
    use_wandb(wandb_project, wandb)
    policy = DiffusionPolicy(
        checkpoint,
        ddim_steps=settings.ddim_steps,
        spacing=settings.spacing or None,
        device=pick_device(settings.device),
    )
    with interrupt.honoured():
        result = steer(policy, settings)
    picture = draw_steering(settings.save_folder, f"{policy.task}: {settings.algorithm.upper()} in noise space")
    for name in ("cloned", "steered", "steered_deterministic"):
        row = result[name]
        print(
            f"{name:24s} {row['solved']} of {row['episodes']} ({row['rate']:.0%}, "
            f"{row['low']:.1%} to {row['high']:.1%}), {row['mean_decisions']:.0f} decisions, "
            f"return {row['mean_return']:.1f}"
        )
    print(f"{settings.save_folder / BEST}; best on fresh episodes: {result['use']}; {picture}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
