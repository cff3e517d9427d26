"""The command line of online learning on gymnasium's MuJoCo tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.online import EvaluatedFlags, RunFlags
from runtime.flags import setting

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class GymnasiumFlags(EvaluatedFlags):
    """How long an agent learns, and how it is evaluated; defaults are those of the file."""

    config: Path | None = Path("config/online/gymnasium.yaml")
    """YAML file with any part of OnlineConfig"""
    learning_starts: int = setting(5_000)
    """steps with random actions, before the first update"""
    eval_freq: int = setting(10_000)
    """steps between evaluations"""


PUBLISHED_RUN = RunFlags("sac", "sac_gymnasium")


def train_sac_gymnasium(
    agent: GymnasiumFlags,
    run: RunFlags = PUBLISHED_RUN,
    env_id: str = "Hopper-v5",
    seed: int = 1,
    success_return: float | None = None,
    tensorboard: bool = False,
) -> None:
    """Train; writes eval_history.csv, metrics.jsonl and the checkpoint of the best mean return.

    Args:
        env_id: a MuJoCo task of gymnasium in its version 5
        seed: of networks, actions, episodes and batches
        success_return: return of a solved episode; default: gymnasium's threshold of the task
        tensorboard: log to TensorBoard too
    """
    from corl.online_config import OnlineConfig
    from envs.gymnasium_task import GymnasiumTask
    from pipeline.stages.gymnasium_sac import LearnGymnasium
    from runtime import interrupt
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings, path_part

    task = GymnasiumTask.standard(env_id, success_return)
    config = agent.load(OnlineConfig)
    if agent.prints(config):
        return
    configure_logging()
    root = run.runs_path or machine_settings().runs_path
    stage = LearnGymnasium(
        task=task,
        config=config,
        seed=seed,
        folder=root / f"{env_id}__{path_part('exp_name', run.exp_name)}__{seed}",
        tracking=run.tracking(tensorboard=tensorboard),
        device=run.device,
    )
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(
        f"{task}: return {scores.last_return:.1f} after {scores.steps:,} steps (best {scores.best_return:.1f}), "
        f"{scores.last_solved}/{scores.episodes} reach {task.success_return:g}"
    )
    print(f"run: {stage.folder}")
