"""Roll out a cloned policy, or one steered by SAC, over seeded episodes.

Example:
    python -m dsrl.evaluate --checkpoint checkpoints/bc/lift/state_3000.pt --n_episodes 20 --ddim_steps 10
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    checkpoint: Path,
    task: str | None = None,
    sac: Path | None = None,
    deterministic: bool = False,
    n_episodes: int = 20,
    ddim_steps: int | None = None,
    spacing: str | None = None,
    eta: float = 0.0,
    use_ema: bool = True,
    horizon: int | None = None,
    full_horizon: bool = False,
    num_envs: int = 10,
    workers: int = 0,
    seed: int = 0,
    device: str = "auto",
    output: Path | None = None,
) -> None:
    """Success at any control step within the horizon, with its 95 % Wilson interval; a row per episode as CSV.

    Args:
        checkpoint: state_{epoch}.pt of the cloned policy
        task: refuse a checkpoint of another task
        sac: sac_best.zip that chooses the noise; default: noise from N(0, I)
        deterministic: take the mean of the SAC policy
        n_episodes: episodes, each with a seed of its own
        ddim_steps: sampling steps; default: the checkpoint's
        spacing: leading or trailing sampling times; default: the checkpoint's
        eta: 0 makes sampling deterministic given its first noise
        use_ema: averaged weights rather than the last ones
        horizon: control steps per episode; default: the task's
        full_horizon: go on after a success, to see whether the task stays solved
        num_envs: episodes side by side
        workers: processes to step them (0: this one)
        seed: of start states and noise
        device: auto, cpu or cuda[:N]
        output: folder of episodes.csv and summary.json; default: evaluation/<what is evaluated> beside the checkpoint
    """
    from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
    from dsrl.rollout import EPISODE_COLUMNS, episode_seeds, open_environments, run_episodes
    from runtime.atomic import write_json
    from runtime.checks import expect_sizes
    from runtime.device import pick_device
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging, progress
    from runtime.provenance import provenance
    from runtime.tables import write_csv

    expect_sizes(n_episodes=n_episodes, num_envs=num_envs, **({} if horizon is None else {"horizon": horizon}))
    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    if deterministic and not sac:
        raise ConfigError("--deterministic: expected --sac too, whose mean it takes")
    configure_logging()
    opened = Checkpoint.read(checkpoint)
    opened.expect_task(task)
    horizon = opened.task.horizon if horizon is None else horizon
    policy = DiffusionPolicy(
        opened, ddim_steps=ddim_steps, spacing=spacing, eta=eta, device=pick_device(device), use_ema=use_ema
    )
    choose = None
    if sac:
        from dsrl.noise_env import load_actor

        choose = load_actor(sac, policy, deterministic=deterministic)
    seeds = episode_seeds(seed, n_episodes)
    count = min(num_envs, n_episodes)
    with (
        open_environments(
            policy, count, workers=workers, horizon=horizon, until_success=not full_horizon
        ) as environments,
        progress(n_episodes, f"episodes of {policy.task}") as bar,
    ):
        episodes = run_episodes(policy, environments, seeds, choose, bar.update)
    folder = output or checkpoint.parent / "evaluation" / _name(checkpoint, sac, deterministic, use_ema)
    summary = {
        "task": policy.task.name,
        "checkpoint": checkpoint.name,
        "steered_by": str(sac) if sac else None,
        "deterministic": deterministic,
        "weights": "ema" if use_ema else "last",
        "data": opened.contents.get("data"),
        **episodes.summary(),
        "horizon": horizon,
        "ddim_steps": policy.ddim_steps,
        "spacing": policy.spacing,
        "eta": eta,
        "seed": seed,
        "made_with": provenance(),
    }
    write_csv(folder / "episodes.csv", EPISODE_COLUMNS, episodes.rows())
    write_json(folder / "summary.json", summary)
    kept = f", {summary['solved_at_the_end']} at the end too" if full_horizon else ""
    print(
        f"{policy.task}: {episodes.solved} of {n_episodes} solved ({episodes.rate:.0%}, 95 % interval "
        f"{summary['low']:.1%} to {summary['high']:.1%}){kept}; DDIM {policy.ddim_steps} steps, "
        f"{summary['weights']} weights, {folder}"
    )


def _name(checkpoint: Path, sac: Path | None, deterministic: bool, use_ema: bool) -> str:
    """What is evaluated, so that one policy's figures do not take the place of another's: `state_3000_lift_sac_best`.

    Models of all steering runs have the same file name; their folder tells them apart.
    """
    parts = [checkpoint.stem] if use_ema else [checkpoint.stem, "last_weights"]
    if sac:
        parts += [sac.resolve().parent.name, sac.stem]
    return "_".join([*parts, "mean"] if deterministic else parts)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
