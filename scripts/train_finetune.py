"""Online fine-tuning of an agent of scripts.train_offline in one held-out task.

Example:
    python -m scripts.train_finetune --algo cp_iql --dataset_split compositional --dataset_type medium --task_id 3

The same command run again continues where it was stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.commands.offline import Algorithm, SplitFlags
from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    split: SplitFlags,
    algo: Algorithm = "iql",
    exp: str = "full",
    base_path: str = "_offline_training",
    n_steps: int = 500_000,
    update_start_step: int = 20_000,
    task_id: int = 0,
    seed: int = 0,
    batch_size: int = 256,
    num_envs: int = 1,
    eval_freq: int = 50_000,
    n_eval_episodes: int = 10,
    horizon: int = 500,
    results_path: Path | None = None,
    device: str = "auto",
) -> None:
    """Go on learning in the simulator from an offline checkpoint; all of its networks and optimisers are kept.

    Args:
        algo: as trained
        exp: as trained
        base_path: folder of the trained agents, below results_path
        n_steps: steps of the environment
        update_start_step: step of the first update; until then the offline policy acts
        task_id: number among the test tasks
        seed: of the trained agent, actions, episodes and batches
        batch_size: transitions per update
        num_envs: environments side by side
        eval_freq: steps between evaluations
        n_eval_episodes: episodes of an evaluation
        horizon: control steps per episode
        results_path: where results are; default from config/paths.yaml
        device: auto, cpu or cuda[:N]
    """
    from corl.online_config import OnlineConfig
    from pipeline.stages.offline import FineTune, newest_checkpoint
    from runtime import interrupt
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings, path_part

    configure_logging()
    dataset = split.config()
    tests = dataset.tasks()["test"]
    if not 0 <= task_id < len(tests):
        raise ConfigError(f"--task_id {task_id}: the split has {len(tests)} test tasks")
    config = OnlineConfig(
        max_timesteps=n_steps,
        num_envs=num_envs,
        buffer_size=500_000,
        batch_size=batch_size,
        learning_starts=update_start_step,
        random_start=False,
        eval_freq=eval_freq,
        n_episodes=n_eval_episodes,
        horizon=horizon,
        task_ids=True,
    )
    root = results_path or machine_settings().results_path
    path_part("base_path", base_path)
    checkpoint = newest_checkpoint(dataset.folder(root / base_path, exp, algo), seed)
    folder = dataset.folder(root / "_finetune_training", exp, algo) / str(update_start_step) / f"task_{task_id}"
    stage = FineTune(tests[task_id], checkpoint, config, seed, folder, device=device)
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(f"{tests[task_id]}: {scores.last_solved}/{scores.episodes} solved after {scores.steps:,} steps")
    print(f"run: {folder}")


if __name__ == "__main__":
    from pipeline.stages.offline import key_values

    run_main(lambda: parse_flags(main, key_values(sys.argv[1:])))
