"""Record data sets in the published HDF5 layout, with a family's experts or with CompoSuite's published policies.

Examples:
    python -m scripts.collect_expert_data --tasks IIWA_Box_None_PickPlace IIWA_Box_None_Push --episodes 20
    python -m scripts.collect_expert_data --robot IIWA --episodes 2000 --workers 16
    python -m scripts.collect_expert_data --tasks IIWA_Box_None_Push --policies ppo_policies --dataset_type medium
    python -m scripts.collect_expert_data --family examples.arm_family:FAMILY --all_tasks --horizon 100
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
    from envs.recording import CollectConfig


@dataclass(frozen=True)
class RecordingFlags:
    """How runs are recorded."""

    episodes: int = 20
    """runs per task"""
    noise: float = 0.03
    """standard deviation of the exploration noise on every action"""
    shove_every: int = 50
    """steps between shoves that throw the arm off its path; 0: none"""
    shove_steps: int = 14
    """longest shove; its steps are not recorded"""
    slip: float = 0.3
    """chance per step of gripping that the gripper opens again; its steps are not recorded"""
    fumble: float = 0.0
    """chance that a shove takes the gripper too, which then does the opposite of what the expert asks"""
    solved_only: bool = False
    """make runs that do not end solved again, from other starts"""
    linger: int = 60
    """steps after success at which a run of expert data ends"""
    horizon: int = 500
    """control steps per run (CompoSuite: 20 per second)"""
    seed: int = 0
    """of start states and noise"""

    def config(self) -> CollectConfig:
        from envs.recording import CollectConfig

        return CollectConfig(**dataclasses.asdict(self))


def main(
    of: TasksFlags,
    recording: RecordingFlags,
    dataset_type: str = "expert",
    policies: Path | None = None,
    workers: int = 0,
    data_path: Path | None = None,
) -> None:
    """Record data sets; the same command run again continues where it was stopped.

    Args:
        dataset_type: expert, medium, random or medium-replay-subsampled (envs/qualities.py tells how they are made)
        policies: folder of published CompoSuite policies; each task's best one is recorded, not the scripted expert
        workers: processes (0: one per core)
        data_path: root of the data; default: data_path of config/paths.yaml
    """
    import functools

    from envs.collect import collect, recorded_share
    from envs.experts import best_policy
    from envs.family import family_of
    from envs.qualities import config_of_kind
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask
    from offline_compositional_rl_datasets.hdf5 import task_file
    from runtime.cpus import cpu_count
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings

    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    if policies:
        of.expect_composuite("--policies")
    tasks, config = of.chosen(), recording.config()
    configure_logging()
    root = data_path or machine_settings().data_path
    for task in tasks:
        policy = best_policy(policies, task) if policies and isinstance(task, CompoSuiteTask) else None
        expert = family_of(task).expert(task) if policy is None else family_of(task).expert(task, policy)
        known = functools.partial(recorded_share, task_file(root, dataset_type, task), policy=policy)
        rates = collect(
            [task],
            config_of_kind(dataset_type, task, config, expert, known),
            root,
            dataset_type=dataset_type,
            workers=workers or cpu_count(),
            policies={task: policy} if policy else {},
        )
        print(f"{task.name:40s} success {rates[task]:.2f}", flush=True)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
