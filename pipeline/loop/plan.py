"""What the stages of an iteration are: values made of the run's configuration and state."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from diffusion.config import TrainConfig
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.stage import Stage
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from pipeline.stages.generator import Generate, GenerateSets, TrainGenerator, sets_in_groups
from pipeline.stages.paths import generator_file, model_file, policy_folder
from pipeline.stages.policy import TrainPolicies, TrainPolicy, policies_in_groups
from pipeline.stages.practice import Practise
from runtime.atomic import is_complete
from runtime.seeds import derive_seed


def generator_stages(run: Run, iteration: Iteration) -> list[TrainGenerator]:
    """The generators of an iteration, which differ by their seeds."""
    first, seed = generator_stage(run, iteration), run.config.diffusion_seed
    return [
        first,
        *(
            dataclasses.replace(
                first,
                number=k,
                seed=derive_seed("generator", seed, k),
                checkpoint=generator_file(first.checkpoint, k),
                initial=generator_file(first.initial, k) if first.initial else None,
            )
            for k in range(1, run.config.generators)
        ),
    ]


def generator_stage(run: Run, iteration: Iteration) -> TrainGenerator:
    """The first generator of an iteration."""
    config = run.config
    sources = tuple((stage.task, stage.output) for stage in source_stages(run, iteration))
    return TrainGenerator(
        data_path=run.paths.data_path,
        dataset_type=config.dataset_type,
        expert_tasks=run.tasks.train,
        sources=sources,
        network=config.network,
        training=_training(run, iteration.index),
        seed=config.diffusion_seed,
        checkpoint=_checkpoint(run, iteration.index),
        initial=_checkpoint(run, iteration.index - 1) if _starts_warm(run, iteration.index) else None,
        device=config.device,
        devices=config.resources.diffusion.gpus,
    )


def _starts_warm(run: Run, iteration: int) -> bool:
    return iteration > 0 and run.config.training.warm_start_steps > 0


def _training(run: Run, iteration: int) -> TrainConfig:
    training = run.config.training
    warm = _starts_warm(run, iteration)
    return dataclasses.replace(training, steps=training.warm_start_steps) if warm else training


def _checkpoint(run: Run, iteration: int) -> Path:
    name = run.config.model_name(iteration)
    return model_file(run.paths.results_path, iteration, name, _training(run, iteration).steps)


def source_stages(run: Run, iteration: Iteration) -> list[Generate | Practise]:
    """What made the accepted sets that train an iteration's generator."""
    return [_maker(run, i, task) for i, tasks in sorted(iteration.sources.items()) for task in tasks]


def _maker(run: Run, iteration: int, task: Task) -> Generate | Practise:
    """What made the set of a task that an iteration accepted."""
    done = [it.verdict for it in run.state.iterations if it.index == iteration and it.complete]
    practised = any(task in selection.practised for selection in done)
    return practice_stage(run, iteration, task) if practised else generation_stage(run, iteration, task)


def generation_stages(run: Run, iteration: Iteration) -> list[Generate]:
    return [generation_stage(run, iteration.index, task) for task in iteration.targets]


def generation_jobs(run: Run, iteration: Iteration) -> list[Generate | GenerateSets]:
    """What draws the sets, as many to a job as the configuration says."""
    return sets_in_groups(generation_stages(run, iteration), run.config.generation_group)


def generation_stage(run: Run, iteration: int, task: Task) -> Generate:
    config = run.config
    checkpoint, seed = _checkpoint(run, iteration), config.diffusion_seed
    others = tuple(generator_file(checkpoint, k) for k in range(1, config.generators))
    return Generate(task, checkpoint, config.sampling, seed, device=config.device, ground=config.ground, others=others)


def practice_stages(run: Run, iteration: Iteration, tasks: Sequence[Task] | None = None) -> list[Practise]:
    """Of the tasks that are given; without, of those whose generated sets are not good enough."""
    tasks = to_practise(run, iteration) if tasks is None else tasks
    return [practice_stage(run, iteration.index, task) for task in tasks]


def to_practise(run: Run, iteration: Iteration) -> list[Task]:
    """The targets whose policies, trained on the generated set alone, are not above the threshold."""
    if not run.config.practice.rounds:
        return []
    if iteration.complete:
        return [task for task in iteration.targets if task in iteration.practised]
    limit = Fraction(run.state.threshold.value)
    return [task for task in iteration.targets if (rate := iteration.rate(task)) is not None and rate <= limit]


def practice_stage(run: Run, iteration: int, task: Task) -> Practise:
    config, made = run.config, generation_stage(run, iteration, task)
    settings = (config.practice, config.sampling, config.policy, config.diffusion_seed, config.device)
    return Practise(task, made.checkpoint, made.output, *settings, others=made.others)


def policy_stages(run: Run, iteration: Iteration) -> list[TrainPolicy | TrainPolicies]:
    """Policies of the generated sets alone."""
    left_out = {*iteration.failed, *rejected(run, iteration)}
    tasks = [task for task in iteration.targets if task not in left_out]
    return _policies(run, iteration, [(task, generation_stage(run, iteration.index, task).output) for task in tasks])


def policies(run: Run, iteration: Iteration) -> list[TrainPolicy]:
    """Every pair of task and seed of an iteration, however they are grouped into jobs."""
    return [member for stage in policy_stages(run, iteration) for member in stage.members]


def practised_policy_stages(run: Run, iteration: Iteration) -> list[TrainPolicy | TrainPolicies]:
    """Policies of the practised sets that are there."""
    stages = [stage for stage in practice_stages(run, iteration) if is_complete(stage.output)]
    return _policies(run, iteration, [(stage.task, stage.output) for stage in stages], practised=True)


def _policies(
    run: Run, iteration: Iteration, sets: Sequence[tuple[Task, Path]], *, practised: bool = False
) -> list[TrainPolicy | TrainPolicies]:
    config, i = run.config, iteration.index
    where = (run.paths.results_path, i, config.model_name(i))
    stages = [
        TrainPolicy(
            task=task,
            data=data,
            synthetic=True,
            policy=config.policy,
            seed=seed,
            folder=policy_folder(*where, task, seed, practised=practised),
            device=config.device,
            practised=practised,
        )
        for task, data in sets
        for seed in run.seeds(task)
    ]
    return policies_in_groups(stages, config.policy.group)


def rejected(run: Run, iteration: Iteration) -> dict[Task, str]:
    """Tasks whose generated sets no policy need try, and why; none unless `quality.skip`."""
    if not run.config.quality.skip:
        return {}
    known = {stage.task: stage.quality() for stage in generation_stages(run, iteration)}
    reasons = {task: quality.rejected(run.config.quality) for task, quality in known.items() if quality}
    return {task: reason for task, reason in reasons.items() if reason}


def stages_of(run: Run, iteration: Iteration) -> dict[str, Sequence[Stage]]:
    """By the names in `PipelineConfig.stages`, and those of practice in any case."""
    return {
        "diffusion": generator_stages(run, iteration),
        "generation": generation_jobs(run, iteration),
        "policy": policy_stages(run, iteration),
        "practice": practice_stages(run, iteration),
        "practised_policy": practised_policy_stages(run, iteration),
    }
