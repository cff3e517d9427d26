"""Online SAC on one of gymnasium's MuJoCo tasks, as CleanRL's script for continuous actions has it.

Example:
    python -m scripts.train_sac_gymnasium --env_id Hopper-v5 --total_timesteps 100000 --seed 1

The same command run again continues. The best policy is <runs>/Hopper-v5__sac__1/checkpoints/sac_policy_model.pt, which
`python -m dsrl.collect_demos --tasks Hopper-v5 --expert ...` records demonstrations of.
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    env_id: str = "Hopper-v5",
    seed: int = 1,
    config: Path = Path("config/online/gymnasium.yaml"),
    exp_name: str = "sac",
    total_timesteps: int | None = None,
    num_envs: int | None = None,
    learning_starts: int | None = None,
    eval_freq: int | None = None,
    n_eval_episodes: int | None = None,
    success_return: float | None = None,
    cuda: bool = True,
    track: bool = False,
    wandb_project_name: str = "sac_gymnasium",
    tensorboard: bool = False,
    runs_path: Path | None = None,
) -> None:
    """Train; writes eval_history.csv, metrics.jsonl and the checkpoint of the best mean return.

    Args:
        env_id: a MuJoCo task of gymnasium in its version 5
        seed: of networks, actions, episodes and batches
        config: YAML file with any part of OnlineConfig
        exp_name: part of the run's name
        total_timesteps: steps of the environment
        num_envs: environments side by side
        learning_starts: steps with random actions, before the first update
        eval_freq: steps between evaluations
        n_eval_episodes: episodes of an evaluation
        success_return: return of a solved episode; default: gymnasium's threshold of the task
        cuda: use a GPU where there is one
        track: log to Weights & Biases too, offline where there is no network
        wandb_project_name: its project
        tensorboard: log to TensorBoard too
        runs_path: where runs go; default from config/paths.yaml
    """
    from corl.online_config import OnlineConfig
    from envs.gymnasium_task import GymnasiumTask
    from pipeline.stages.gymnasium_sac import LearnGymnasium
    from pipeline.stages.online import Tracking
    from runtime import interrupt
    from runtime.config import given, load_yaml
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings, path_part

    task = GymnasiumTask.standard(env_id, success_return)
    flags = {
        "max_timesteps": total_timesteps,
        "num_envs": num_envs,
        "learning_starts": learning_starts,
        "eval_freq": eval_freq,
        "n_episodes": n_eval_episodes,
    }
    online = load_yaml(OnlineConfig, config, given(flags))
    configure_logging()
    folder = (runs_path or machine_settings().runs_path) / f"{env_id}__{path_part('exp_name', exp_name)}__{seed}"
    stage = LearnGymnasium(
        task=task,
        config=online,
        seed=seed,
        folder=folder,
        tracking=Tracking(wandb_project_name if track else None, tensorboard),
        device="auto" if cuda else "cpu",
    )
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(
        f"{task}: return {scores.last_return:.1f} after {scores.steps:,} steps (best {scores.best_return:.1f}), "
        f"{scores.last_solved}/{scores.episodes} reach {task.success_return:g}"
    )
    print(f"run: {folder}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
