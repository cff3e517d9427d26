"""Record expert data with the scripted experts, in the published HDF5 layout.

Example:
    python -m scripts.collect_expert_data --tasks IIWA_Box_None_PickPlace IIWA_Box_None_Push --episodes 20
"""

from __future__ import annotations

from pathlib import Path

from runtime.cli import parse_flags
from runtime.errors import run_main


def main(
    tasks: list[str],
    episodes: int = 20,
    noise: float = 0.03,
    shove_every: int = 50,
    shove_steps: int = 14,
    slip: float = 0.3,
    horizon: int = 500,
    seed: int = 0,
    workers: int = 0,
    data_path: Path | None = None,
    dataset_type: str = "expert",
) -> None:
    """Record expert data of tasks with the scripted experts.

    Args:
        tasks: names such as IIWA_Box_None_PickPlace
        episodes: runs per task
        noise: standard deviation of the exploration noise on every action
        shove_every: steps between shoves that throw the arm off its path; 0: none
        shove_steps: longest shove; its steps are not recorded
        slip: chance per step of gripping that the gripper opens again; its steps are not recorded
        horizon: control steps per run (20 per second)
        seed: of start states and noise
        workers: processes (0: one per core)
        data_path: root of the data; default: data_path of config/paths.yaml
        dataset_type: first part of the folder's name
    """
    from envs.collect import CollectConfig, collect
    from offline_compositional_rl_datasets.task import Task
    from runtime.cpus import cpu_count
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging
    from runtime.paths import machine_settings

    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    configure_logging()
    config = CollectConfig(
        episodes=episodes,
        horizon=horizon,
        noise=noise,
        shove_every=shove_every,
        shove_steps=shove_steps,
        slip=slip,
        seed=seed,
    )
    chosen = [Task.parse(name) for name in tasks]
    rates = collect(
        chosen,
        config,
        data_path or machine_settings().data_path,
        dataset_type=dataset_type,
        workers=workers or cpu_count(),
    )
    for task, rate in rates.items():
        print(f"{task.name:40s} success {rate:.2f}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
