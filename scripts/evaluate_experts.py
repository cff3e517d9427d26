"""How good experts are, those of a family or published ones, and whether their recordings can be cloned.

Examples:
    python -m scripts.evaluate_experts --robot IIWA --episodes 20 --json experts.json
    python -m scripts.evaluate_experts --tasks IIWA_Box_None_PickPlace --clone
    python -m scripts.evaluate_experts --family examples.arm_family:FAMILY --all_tasks
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.tasks_flags import TasksFlags
from runtime.cli import parse_flags
from runtime.main import run_main

if TYPE_CHECKING:
    from pipeline.analysis.experts import CloneConfig


@dataclass(frozen=True)
class CloneFlags:
    """Whether and how experts are cloned."""

    clone: bool = False
    """also record each expert and train TD3+BC (4,000 steps of 512) on the recording alone"""
    clone_runs: int = 20
    """runs of the expert in a recording"""
    config: Path = Path("config/study/base.yaml")
    """YAML file of the pipeline, for how to record and train"""
    results_path: Path | None = None
    """where recordings and policies go; default: expert_clones in results_path of config/paths.yaml"""

    def cloning(self, episodes: int) -> CloneConfig | None:
        from envs.recording import CollectConfig
        from pipeline.analysis.experts import CloneConfig
        from pipeline.loop.config import load_pipeline_config
        from runtime.paths import machine_settings

        if not self.clone:
            return None
        settings = load_pipeline_config(self.config, {})
        policy = dataclasses.replace(
            settings.policy, max_timesteps=4000, batch_size=512, eval_freq=2000, n_episodes=10, fresh_episodes=episodes
        )
        recording = dataclasses.replace(settings.collect or CollectConfig(), episodes=self.clone_runs)
        return CloneConfig(recording, policy, self.results_path or machine_settings().results_path / "expert_clones")


def main(
    of: TasksFlags,
    cloned: CloneFlags,
    episodes: int = 20,
    policies: Path | None = None,
    workers: int = 0,
    json: Path | None = None,
) -> None:
    """Print a table: success at the last step and mean return of each expert, undisturbed.

    Without tasks, a robot or --all_tasks: those of CompoSuite's IIWA.

    Args:
        episodes: per task, seeded
        policies: folder of published CompoSuite policies, to score each task's best one in place of the scripted expert
        workers: processes (0: one per core)
        json: file for the figures
    """
    import functools

    from envs.experts import best_policy
    from pipeline.analysis.experts import score_experts
    from runtime.atomic import write_json
    from runtime.cpus import cpu_count
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    runs = cloned.clone_runs
    if episodes < 1 or runs < 1 or workers < 0:
        raise ConfigError(f"episodes {episodes}, clone_runs {runs}, workers {workers}: expected at least 1, 1, 0")
    if policies:
        of.expect_composuite("--policies")
    configure_logging()
    chosen = (dataclasses.replace(of, robot="IIWA") if of == TasksFlags() else of).chosen()
    rows = []
    print(f"{'task':40s} {'success':>8s} {'return':>7s}" + (f" {'clone':>8s}" if cloned.clone else ""), flush=True)
    choose = functools.partial(best_policy, policies) if policies else None
    cloning = cloned.cloning(episodes)
    for score in score_experts(chosen, episodes, workers=workers or cpu_count(), clone=cloning, choose_policy=choose):
        last = f" {f'{score.clone_solved}/{score.clone_episodes}':>8s}" if cloned.clone else ""
        solved = f"{score.solved}/{score.episodes}"
        print(f"{score.task.name:40s} {solved:>8s} {score.mean_return:7.0f}{last}", flush=True)
        rows.append({**dataclasses.asdict(score), "task": score.task.name})
    short = [row["task"] for row in rows if row["solved"] < 0.9 * row["episodes"]]
    print(f"{len(rows)} tasks; success below 0.9: {', '.join(short) or 'none'}")
    if json:
        write_json(json, rows)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
