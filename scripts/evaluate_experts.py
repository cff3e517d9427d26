"""How good experts are, scripted or published, and whether their recordings can be cloned.

Examples:
    python -m scripts.evaluate_experts --robot IIWA --episodes 20 --json experts.json
    python -m scripts.evaluate_experts --tasks IIWA_Box_None_PickPlace --clone
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    robot: str = "IIWA",
    tasks: list[str] = [],  # noqa: B006 - tyro reads the default
    episodes: int = 20,
    clone: bool = False,
    clone_runs: int = 20,
    config: Path = Path("config/pipeline/demo.yaml"),
    results_path: Path | None = None,
    policies: Path | None = None,
    workers: int = 0,
    json: Path | None = None,
) -> None:
    """Print a table: success at the last step and mean return of each expert, undisturbed.

    Args:
        robot: all tasks of this robot
        tasks: or just these
        episodes: per task, seeded
        clone: also record each expert and train TD3+BC (4,000 steps of 512) on the recording alone
        clone_runs: runs of the expert in a recording
        config: YAML file of the pipeline, for how to record and train
        results_path: where recordings and policies go; default: expert_clones in results_path of config/paths.yaml
        policies: folder of published CompoSuite policies, to score each task's best one in place of the scripted expert
        workers: processes (0: one per core)
        json: file for the figures
    """
    import dataclasses
    import functools

    from envs.experts import best_policy
    from envs.recording import CollectConfig
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask, tasks_of
    from pipeline.analysis.experts import CloneConfig, score_experts
    from pipeline.loop.config import load_pipeline_config
    from runtime.atomic import write_json
    from runtime.cpus import cpu_count
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings

    if episodes < 1 or clone_runs < 1 or workers < 0:
        raise ConfigError(f"episodes {episodes}, clone_runs {clone_runs}, workers {workers}: expected at least 1, 1, 0")
    configure_logging()
    chosen = [CompoSuiteTask.parse(name) for name in tasks] or tasks_of(robot)
    cloning = None
    if clone:
        settings = load_pipeline_config(config, {})
        policy = dataclasses.replace(
            settings.policy, max_timesteps=4000, batch_size=512, eval_freq=2000, n_episodes=10, fresh_episodes=episodes
        )
        recording = dataclasses.replace(settings.collect or CollectConfig(), episodes=clone_runs)
        folder = results_path or machine_settings().results_path / "expert_clones"
        cloning = CloneConfig(recording, policy, folder)
    rows = []
    print(f"{'task':40s} {'success':>8s} {'return':>7s}" + (f" {'clone':>8s}" if clone else ""), flush=True)
    choose = functools.partial(best_policy, policies) if policies else None
    for score in score_experts(chosen, episodes, workers=workers or cpu_count(), clone=cloning, choose_policy=choose):
        cloned = f" {f'{score.clone_solved}/{score.clone_episodes}':>8s}" if clone else ""
        solved = f"{score.solved}/{score.episodes}"
        print(f"{score.task.name:40s} {solved:>8s} {score.mean_return:7.0f}{cloned}", flush=True)
        rows.append({**dataclasses.asdict(score), "task": score.task.name})
    short = [row["task"] for row in rows if row["solved"] < 0.9 * row["episodes"]]
    print(f"{len(rows)} tasks; success below 0.9: {', '.join(short) or 'none'}")
    if json:
        write_json(json, rows)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
