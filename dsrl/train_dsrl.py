"""Stage 2: steer the frozen policy by SAC in its noise space.

Example:
    python -m dsrl.train_dsrl --bc_checkpoint checkpoints/bc/lift/state_3000.pt --task lift --action_magnitude 1.0 \\
        --ddim_steps 10 --initial_steps 320000 --train_steps 100000 --utd 20
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
    eval_envs: int | None = None,
    eval_workers: int | None = None,
    checkpoint_every: int | None = None,
    keep_buffer: bool | None = None,
    offline_data: Path | None = None,
    offline_share: float | None = None,
    n_step: int | None = None,
    critics: int | None = None,
    critic_layer_norm: bool | None = None,
    backup: str | None = None,
    backup_critics: int | None = None,
    backup_entropy: bool | None = None,
    warm_noise: str | None = None,
    critic_warmup: int | None = None,
    ent_coef: str | None = None,
    target_entropy: float | None = None,
    distill_steps: int | None = None,
    distill_pairs: int | None = None,
    refresh_share: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    wandb_project: str | None = None,
    wandb: Literal["offline", "online"] | None = None,
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
        eval_envs: environments side by side that run the evaluations; 0: one per episode, 20 at most
        eval_workers: processes that step these; 0: this one
        checkpoint_every: keep the actor as checkpoints/sac_<steps>.zip every so many steps of training; 0: never
        keep_buffer: keep the replay buffer beside it
        offline_data: demonstrations (.hdf5, for na) or a kept replay buffer (.npz) to learn from too
        offline_share: share of each batch that is offline data; 0: as its number says
        n_step: decisions whose rewards stand in a target
        critics: how many
        critic_layer_norm: a LayerNorm behind each of the critics' hidden layers
        backup: what a target takes of the critics' values: min, mean, or the minimum of a random subset
        backup_critics: size of that subset
        backup_entropy: the target counts the entropy
        warm_noise: clipped or truncated noise in the warm start
        critic_warmup: gradient steps of the critics alone after the warm start
        ent_coef: the entropy's weight: a number, or auto_NUMBER, from which it is learned
        target_entropy: towards which
        distill_steps: of na: gradient steps of the noise critic per update
        distill_pairs: of na: noises denoised once per stored decision for these; 0: new ones in each step
        refresh_share: of na: share of a batch whose next chunk is denoised anew; the others' is the last one
        seed: of networks, starts and noise
        device: auto, cpu or cuda[:N]
        wandb_project: send metrics to this W&B project as well
        wandb: offline (uploaded later by wandb sync) or online [offline]
    """
    flags = {
        name: value
        for name, value in locals().items()
        if name not in ("config", "task", "bc_checkpoint", "wandb_project", "wandb")
    }
    flags["offline_data"] = None if offline_data is None else str(offline_data)
    from dsrl.config import DSRLConfig, load_task_config
    from dsrl.curves import draw_steering
    from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
    from dsrl.steering import BEST, steer
    from runtime import interrupt
    from runtime.device import pick_device
    from runtime.logs import configure_logging
    from runtime.wandb_sink import use_wandb

    configure_logging()
    use_wandb(wandb_project, wandb)
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
            f"{row['low']:.1%} to {row['high']:.1%}), {row['mean_decisions']:.0f} decisions, "
            f"return {row['mean_return']:.1f}"
        )
    print(f"{settings.save_folder / BEST}; best on fresh episodes: {result['use']}; {picture}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
