"""The command lines of the multitask baselines: one program with two networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pipeline.commands.expert_flags import ExpertFlags
from pipeline.commands.job_flags import ClusterFlags, JobFlags, PlaceFlags
from runtime.flags import ConfigFlags, alias, setting

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class BaselineFlags(ConfigFlags):
    """How an agent is trained."""

    config: Path | None = None
    """YAML file with any part of MultitaskConfig, see config/multitask/"""
    max_timesteps: int = setting(50_000)
    """gradient steps"""
    batch_size: int = setting(1792)
    """rows per step"""
    eval_freq: int = setting(5_000)
    """steps between evaluations on the held-out tasks"""
    n_episodes: Annotated[int, alias("n_eval_episodes")] = setting(10)
    """per task and evaluation"""


def baseline_command(network: Literal["transformer", "compositional"]) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags."""
    published = BaselineFlags(batch_size={"transformer": 1792, "compositional": 3584}[network])
    default_places = PlaceFlags()

    def main(
        experts: ExpertFlags,
        jobs: JobFlags,
        site: ClusterFlags,
        agent: BaselineFlags = published,
        seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
        places: PlaceFlags = default_places,
        device: str = "auto",
    ) -> None:
        """Train one agent on all training tasks, one job per seed, and write the table of the held-out tasks.

        The same command run again continues where it was stopped. A flag overrides the file of --config.

        Args:
            seeds: one agent each
            device: auto, cpu or cuda[:N]
        """
        from corl.multitask_config import RUNTIME_SETTINGS, MultitaskConfig
        from pipeline.stages.multitask import TrainMultitask
        from pipeline.sweeps.multitask import write_baseline_tables
        from pipeline.sweeps.sweep import run_sweep
        from runtime.checks import distinct
        from runtime.config import dict_without
        from runtime.logs import configure_logging

        distinct("--seeds", seeds)
        settings = agent.load(MultitaskConfig, {"algorithm": f"{network}_td3_bc"})
        if agent.prints(settings):
            return
        data, held_out = experts.files(), experts.split().test
        name = f"{network}_baseline"
        folder = places.results() / name
        configure_logging()
        stages = [
            TrainMultitask(data, held_out, settings, seed, folder / f"seed_{seed}", device=device) for seed in seeds
        ]
        run_sweep(
            stages,
            jobs.resources(),
            site.config(),
            jobs.retry(),
            logs=places.logs() / f"{name}_logs",
            folder=folder,
            identity={
                "config": dict_without(settings, RUNTIME_SETTINGS),
                "tasks": [task.name for task, _ in data],
                "held_out": [task.name for task in held_out],
            },
            tables=write_baseline_tables,
        )

    return main
