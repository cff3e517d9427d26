"""Stage 2: steer the frozen policy by SAC in its noise space.

Example:
    python -m dsrl.train_dsrl --bc_checkpoint checkpoints/bc/lift/state_3000.pt --task lift --action_magnitude 1.0 \\
        --ddim_steps 10 --initial_steps 320000 --train_steps 100000 --utd 20
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    bc_checkpoint: Path,
    task: str | None = None,
    config: Path | None = None,
    algorithm: str | None = None,
    save_dir: str | None = None,
    action_magnitude: float | None = None,
    ddim_steps: int | None = None,
    initial_steps: int | None = None,
    train_steps: int | None = None,
    utd: int | None = None,
    num_envs: int | None = None,
    workers: bool | None = None,
    horizon: int | None = None,
    until_success: bool | None = None,
    eval_every: int | None = None,
    eval_episodes: int | None = None,
    fresh_episodes: int | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> None:
    """Write sac_best.zip, metrics.jsonl and result.json, where the cloned policy stands beside the steered one.

    What is not given comes from config/dsrl/dsrl_{task}.yaml. Steps are control steps of all environments together.
    The same command again continues a run that was killed or asked to stop (SIGTERM).

    Args:
        bc_checkpoint: state_{epoch}.pt of the cloned policy
        task: refuse a checkpoint of another task
        config: another YAML file of settings
        algorithm: sac, or na (noise aliasing: fewer steps, more computing)
        save_dir: folder; default checkpoints/dsrl/{task}
        action_magnitude: bound of every number of the noise
        ddim_steps: sampling steps
        initial_steps: of the cloned policy, to fill the replay buffer
        train_steps: of training
        utd: gradient steps after each decision of all environments
        num_envs: environments side by side
        workers: a process for each environment
        horizon: control steps per episode
        until_success: a success ends the episode
        eval_every: steps between evaluations
        eval_episodes: fixed episodes of each
        fresh_episodes: other episodes for the final figures
        seed: of networks, starts and noise
        device: auto, cpu or cuda[:N]
    """
    flags = {name: value for name, value in locals().items() if name not in ("config", "task", "bc_checkpoint")}
    from dsrl.config import DSRLConfig, load_task_config
    from dsrl.curves import draw_steering
    from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
    from dsrl.steering import BEST, steer
    from runtime import interrupt
    from runtime.device import pick_device
    from runtime.logs import configure_logging

    configure_logging()
    checkpoint = Checkpoint.read(bc_checkpoint)
    checkpoint.expect_task(task)
    settings = load_task_config(DSRLConfig, "dsrl", checkpoint.args["task"], config, flags)
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
            f"{row['low']:.1%} to {row['high']:.1%}), {row['mean_decisions']:.0f} decisions"
        )
    print(f"{settings.save_folder / BEST}; best on fresh episodes: {result['use']}; {picture}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
