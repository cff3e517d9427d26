"""Record data sets in the published HDF5 layout, with scripted experts or with published policies.

Examples:
    python -m scripts.collect_expert_data --tasks IIWA_Box_None_PickPlace IIWA_Box_None_Push --episodes 20
    python -m scripts.collect_expert_data --robot IIWA --episodes 2000 --workers 16
    python -m scripts.collect_expert_data --tasks IIWA_Box_None_Push --policies ppo_policies --dataset_type medium
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.main import run_main


def main(
    tasks: list[str] = [],  # noqa: B006 - tyro reads the default
    robot: str = "",
    episodes: int = 20,
    dataset_type: str = "expert",
    policies: Path | None = None,
    noise: float = 0.03,
    shove_every: int = 50,
    shove_steps: int = 14,
    slip: float = 0.3,
    linger: int = 60,
    horizon: int = 500,
    seed: int = 0,
    workers: int = 0,
    data_path: Path | None = None,
) -> None:
    """Record data sets; the same command run again continues where it was stopped.

    Args:
        tasks: names such as IIWA_Box_None_PickPlace
        robot: or all tasks of this robot
        episodes: runs per task
        dataset_type: expert, medium, random or medium-replay-subsampled (envs/qualities.py tells how they are made)
        policies: folder of published CompoSuite policies; each task's best one is recorded, not the scripted expert
        noise: standard deviation of the exploration noise on every action
        shove_every: steps between shoves that throw the arm off its path; 0: none
        shove_steps: longest shove; its steps are not recorded
        slip: chance per step of gripping that the gripper opens again; its steps are not recorded
        linger: steps after success at which a run of expert data ends
        horizon: control steps per run (20 per second)
        seed: of start states and noise
        workers: processes (0: one per core)
        data_path: root of the data; default: data_path of config/paths.yaml
    """
    import functools

    from envs.collect import collect, recorded_share
    from envs.experts import best_policy, expert_for
    from envs.qualities import config_of_kind
    from envs.recording import CollectConfig
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask, tasks_of
    from offline_compositional_rl_datasets.hdf5 import task_file
    from runtime.cpus import cpu_count
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings

    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    if bool(tasks) == bool(robot):
        raise ConfigError("expected either --tasks or --robot")
    configure_logging()
    config = CollectConfig(
        episodes=episodes,
        horizon=horizon,
        noise=noise,
        shove_every=shove_every,
        shove_steps=shove_steps,
        slip=slip,
        linger=linger,
        seed=seed,
    )
    root = data_path or machine_settings().data_path
    for task in [CompoSuiteTask.parse(name) for name in tasks] or tasks_of(robot):
        policy = best_policy(policies, task) if policies else None
        known = functools.partial(recorded_share, task_file(root, dataset_type, task), policy=policy)
        rates = collect(
            [task],
            config_of_kind(dataset_type, task, config, expert_for(task, policy), known),
            root,
            dataset_type=dataset_type,
            workers=workers or cpu_count(),
            policies={task: policy} if policy else {},
        )
        print(f"{task.name:40s} success {rates[task]:.2f}", flush=True)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
