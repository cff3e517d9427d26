"""Roll out a cloned policy, or one steered by SAC, over seeded episodes.

Example:
    python -m dsrl.evaluate --checkpoint checkpoints/bc/lift/state_3000.pt --n_episodes 20 --ddim_steps 10
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dsrl.flags import EpisodeFlags, PolicyFlags
from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    acting: PolicyFlags,
    episodes: EpisodeFlags,
    full_horizon: bool = False,
    num_envs: int = 10,
    workers: int = 0,
    output: Path | None = None,
) -> None:
    """Success at any control step within the horizon, with its 95 % Wilson interval; a row per episode as CSV.

    Args:
        full_horizon: go on after a success, to see whether the task stays solved
        num_envs: episodes side by side
        workers: processes to step them (0: this one)
        output: folder of episodes.csv and summary.json; default: evaluation/<what is evaluated> beside the checkpoint
    """
    from dsrl.rollout import EPISODE_COLUMNS, episode_seeds, open_environments, run_episodes
    from runtime.atomic import write_json
    from runtime.checks import expect_sizes
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging, progress
    from runtime.provenance import provenance
    from runtime.tables import write_csv

    episodes.check()
    expect_sizes(num_envs=num_envs)
    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    acting.check()
    configure_logging()
    policy, choose = acting.load()
    horizon = policy.task.horizon if episodes.horizon is None else episodes.horizon
    seeds = episode_seeds(episodes.seed, episodes.n_episodes)
    count = min(num_envs, episodes.n_episodes)
    with (
        open_environments(
            policy, count, workers=workers, horizon=horizon, until_success=not full_horizon
        ) as environments,
        progress(episodes.n_episodes, f"episodes of {policy.task}") as bar,
    ):
        rolled = run_episodes(policy, environments, seeds, choose, bar.update)
    folder = output or acting.checkpoint.parent / "evaluation" / acting.name
    summary = {
        "task": policy.task.name,
        "checkpoint": acting.checkpoint.name,
        "steered_by": str(acting.sac) if acting.sac else None,
        "deterministic": acting.deterministic,
        "weights": "ema" if acting.use_ema else "last",
        "data": policy.checkpoint.contents.get("data"),
        **rolled.summary(),
        "horizon": horizon,
        "ddim_steps": policy.ddim_steps,
        "spacing": policy.spacing,
        "eta": acting.eta,
        "seed": episodes.seed,
        "made_with": provenance(),
    }
    write_csv(folder / "episodes.csv", EPISODE_COLUMNS, rolled.rows())
    write_json(folder / "summary.json", summary)
    kept = f", {summary['solved_at_the_end']} at the end too" if full_horizon else ""
    print(
        f"{policy.task}: {rolled.solved} of {episodes.n_episodes} solved ({rolled.rate:.0%}, 95 % interval "
        f"{summary['low']:.1%} to {summary['high']:.1%}){kept}; DDIM {policy.ddim_steps} steps, "
        f"{summary['weights']} weights, {folder}"
    )


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
