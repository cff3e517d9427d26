"""The command lines of the sweeps: one program with other prior data."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.commands.job_flags import ClusterFlags, JobFlags, PlaceFlags
from pipeline.commands.online import EvaluatedFlags, PriorFlags, RunFlags, Variant

# Worker processes import their parent's script: the rest is imported where it is needed.


def sweep_command(variant: Variant, results: str) -> Callable[..., None]:
    """The function of an entry point, its parameters being the flags; tables go to `sac_exp/<results>`."""

    published_run = RunFlags(variant.exp_name, variant.exp_name)
    published_jobs, default_places = JobFlags(memory=16, time=48, cpus=4), PlaceFlags()

    def main(
        agent: EvaluatedFlags,
        prior: PriorFlags,
        site: ClusterFlags,
        run: RunFlags = published_run,
        jobs: JobFlags = published_jobs,
        seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
        tasks: tuple[str, ...] = (),
        places: PlaceFlags = default_places,
    ) -> None:
        """Run tasks x seeds as jobs and write their tables. The same command run again continues.

        A flag overrides the file of --config.

        Args:
            seeds: runs per task
            tasks: names such as IIWA_Box_None_Push; default: the held-out tasks of the split
        """
        from corl.online_config import RUNTIME_SETTINGS
        from envs.family import find_family
        from pipeline.stages.online import LearnOnline, run_name, synthetic_prior
        from pipeline.sweeps.online import write_online_table
        from pipeline.sweeps.sweep import run_sweep
        from runtime.checks import distinct
        from runtime.config import dict_without
        from runtime.logs import configure_logging

        distinct("--seeds", seeds)
        config = agent.online_config(variant)
        if agent.prints(config):
            return
        chosen = [find_family(prior.family).parse(name) for name in tasks] if tasks else list(prior.split().test)
        distinct("--tasks", chosen)
        generated, recorded = prior.generated(variant), prior.recorded(variant)
        identity = {"exp_name": run.exp_name, "config": dict_without(config, RUNTIME_SETTINGS)}
        if recorded:
            identity |= {"dataset_type": prior.dataset_type, "prior": [task.name for task, _ in recorded]}
        if generated:
            identity |= {"prior": run_name(chosen[0], run.exp_name, 0, generated).rpartition("__")[2]}
        configure_logging()
        stages = [
            LearnOnline(
                task=task,
                config=config,
                seed=seed,
                folder=run.folder(task, seed, generated),
                prior=synthetic_prior(generated, task) if generated else recorded,
                synthetic=generated is not None,
                tracking=run.tracking(),
                method=run.exp_name,
                device=run.device,
            )
            for task in chosen
            for seed in seeds
        ]
        run_sweep(
            stages,
            jobs.resources(),
            site.config(),
            jobs.retry(),
            logs=places.logs() / "slurm",
            folder=places.results() / "sac_exp" / results,
            identity=identity,
            tables=write_online_table,
        )

    return main
