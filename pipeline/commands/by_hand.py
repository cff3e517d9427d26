"""The stages of an iteration by hand: one command each."""

from __future__ import annotations

from pipeline.commands.job_flags import WandbFlags
from pipeline.commands.online import TaskFlags
from pipeline.commands.pipeline_flags import GeneratorFlags, PractiseFlags, TrainGeneratorFlags, TrainPolicyFlags

# Worker processes import their parent's script: the rest is imported where it is needed.


def train_generator(which: TrainGeneratorFlags, metrics: WandbFlags, source_tasks: tuple[str, ...] = ()) -> None:
    """Train the generator on the expert sets of the first `num_train` tasks and on accepted generated sets.

    Args:
        source_tasks: generated sets to add, as RUN:TASK,TASK
    """
    from pipeline.commands.sources import parse_sources
    from pipeline.loop.plan import generator_stages
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime import interrupt
    from runtime.logs import configure_logging

    config = which.pipeline_config()
    if which.prints(config):
        return
    configure_logging()
    metrics.use()
    run = Run.of(config)
    sources = parse_sources(source_tasks, run.family.parse)
    iteration = Iteration(which.diffusion_training_run, targets=(), sources=sources, phase=None)
    with interrupt.honoured():
        for stage in generator_stages(run, iteration):
            stage()


def generate(which: GeneratorFlags, target_task: str | None = None) -> None:
    """Draw the sample files of one task or of all held-out tasks. No expert data is read.

    Args:
        target_task: e.g. IIWA_Box_None_PickPlace; default: all held-out tasks
    """
    from pipeline.loop.plan import generation_stages
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime.logs import configure_logging

    config = which.pipeline_config()
    if which.prints(config):
        return
    configure_logging()
    run = Run.of(config)
    targets = (run.family.parse(target_task),) if target_task else run.tasks.test
    for stage in generation_stages(run, Iteration(which.diffusion_training_run, targets, sources={}, phase=None)):
        stage()


def practise(target_task: str, which: PractiseFlags) -> None:
    """Make a practised set of a task's generated one, beside it. No expert and no reward is used.

    Policies are trained on it by `scripts.train_augmented_policy --dataset_type practised`.

    Args:
        target_task: e.g. IIWA_Box_None_PickPlace
    """
    from pipeline.loop.plan import practice_stages
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime.logs import configure_logging

    config = which.pipeline_config()
    if which.prints(config):
        return
    configure_logging()
    run = Run.of(config)
    iteration = Iteration(which.diffusion_training_run, (run.family.parse(target_task),), sources={}, phase=None)
    for stage in practice_stages(run, iteration, iteration.targets):
        stage()


_NO_PARTS = TaskFlags("", "", "", "")


def train_policy(
    which: TrainPolicyFlags,
    metrics: WandbFlags,
    parts: TaskFlags = _NO_PARTS,
    task: str = "",
    dataset_type: str = "synthetic",
    seed: int = 0,
) -> None:
    """Train on generated data (`--dataset_type synthetic`), a practised set or a task's recorded data, and evaluate.

    Args:
        task: or the task's name; of a family of one's own, which --config names, in this way alone
        dataset_type: synthetic, practised, or the first part of the data folder's name such as expert
        seed: the RL seed
    """
    from envs.family import find_family
    from pipeline.stages.paths import policy_folder, practised_file, samples_file
    from pipeline.stages.policy import TrainPolicy
    from runtime import interrupt
    from runtime.errors import ConfigError
    from runtime.logs import configure_logging

    config = which.pipeline_config()
    if which.prints(config):
        return
    configure_logging()
    metrics.use()
    family, names = find_family(config.family), (parts.robot, parts.obj, parts.obst, parts.subtask)
    if bool(task) == any(names) or (any(names) and not all(names)):
        raise ConfigError("expected --robot, --obj, --obst and --subtask, or --task alone")
    chosen = family.parse(task or "_".join(names))
    where = config.paths.resolved()
    practised = dataset_type == "practised"
    synthetic = practised or dataset_type == "synthetic"
    if synthetic:
        iteration = which.diffusion_training_run
        model = config.model_name(iteration)
        data = samples_file(where.results_path, iteration, model, chosen)
        data = practised_file(data) if practised else data
        folder = policy_folder(where.results_path, iteration, model, chosen, seed, practised=practised)
    else:
        data = family.data_file(where.data_path, dataset_type, chosen)
        folder = where.results_path / dataset_type / f"seed_{config.task_list_seed}" / f"{chosen.name}_RLseed{seed}"
    stage = TrainPolicy(
        task=chosen,
        data=data,
        synthetic=synthetic,
        policy=config.policy,
        seed=seed,
        folder=folder,
        device=config.device,
        episode_ends=config.training.episode_ends,
        practised=practised,
    )
    with interrupt.honoured():
        stage()
    scores = stage.scores()
    print(
        f"{chosen}: best evaluation {scores.best_solved}/{scores.episodes} solved, "
        f"best return {scores.best_return:.1f}; last {scores.last_solved}/{scores.episodes}, "
        f"return {scores.last_return:.1f}"
        + (f"; fresh episodes {scores.fresh_solved}/{scores.fresh_episodes}" if scores.fresh_episodes else "")
    )
    print(f"checkpoints and metrics: {folder}")
