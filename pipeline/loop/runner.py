"""Iterative compositional data generation (Pham et al. 2026): the loop, and what surrounds it.

`iterate` is the algorithm; the rest opens a results folder, prepares data and runs jobs. Everything that is decided is
in the state file, so that the same command run again continues where it was.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from diffusion.config import TrainConfig
from offline_compositional_rl_datasets.splits import load_split
from offline_compositional_rl_datasets.task import Task
from pipeline.jobs.attempts import Group, Ledger
from pipeline.jobs.queue import Site, make_site, resolve_cluster, run_jobs
from pipeline.jobs.stage import Stage, is_done, key_of
from pipeline.loop.config import PathConfig, PipelineConfig
from pipeline.loop.curriculum import filter_sources, phase_of
from pipeline.loop.selection import Score, Threshold, ThresholdRule, select
from pipeline.loop.state import Iteration, LoopState, load_state, save_state
from pipeline.loop.upkeep import is_sound
from pipeline.report import page as report
from pipeline.results import tables, usage
from pipeline.results.practice_table import write_practice_table
from pipeline.stages.generator import Generate, TrainGenerator
from pipeline.stages.paths import expert_files, model_file, policy_folder
from pipeline.stages.policy import TrainPolicies, TrainPolicy, in_groups
from pipeline.stages.practice import Practise
from runtime.atomic import is_complete, write_json
from runtime.config import to_dict
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import ConfigError, DataError, JobError, StateError, one_line
from runtime.lease import Lease, LeaseHeldError
from runtime.logs import duration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskSets:
    """Tasks with expert data, tasks that are generated but not reported (middle), and held-out tasks (test)."""

    train: tuple[Task, ...]
    middle: tuple[Task, ...]
    test: tuple[Task, ...]

    @property
    def generated(self) -> tuple[Task, ...]:
        return (*self.test, *self.middle)


def task_sets(config: PipelineConfig, tasks_path: Path) -> TaskSets:
    """The first `num_train` tasks of the split's train list give data, the rest of it is middle."""
    split = load_split(tasks_path, config.experiment_type, config.task_list_seed)
    if config.num_train > len(split.train):
        raise ConfigError(f"num_train {config.num_train}: the split has {len(split.train)} train tasks")
    sets = TaskSets(split.train[: config.num_train], split.train[config.num_train :], split.test)
    if not sets.test:
        raise ConfigError(f"experiment_type {config.experiment_type}: its split holds out no task")
    return sets


class Loop:
    """A run in its results folder. `run()` carries it to its end, from wherever it was."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.paths: PathConfig = config.paths.resolved()
        self.tasks = task_sets(config, self.paths.tasks_path)
        self.folder = self.paths.results_path / "loops" / config.run_name
        self.state_file, self.lock_file = self.folder / "state.json", self.folder / "lock.json"
        self.identity = config.identity | {"tasks": to_dict(dataclasses.asdict(self.tasks))}
        self.site: Site | None = None
        self.state = LoopState(self.identity, Threshold(_decimal(config.success_threshold)))

    def run(self) -> LoopState:
        """Raises `StateError` where another loop holds the folder or another configuration or other data made it."""
        resolve_cluster(self.config.cluster.kind)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with Lease(self.lock_file):
                self._continue()
        except LeaseHeldError as error:
            raise StateError(f"{self.folder}: another loop is running on this results folder ({error})") from error
        return self.state

    def _continue(self) -> None:
        self._open()
        self.ledger = Ledger(self.folder / "jobs.json")
        jobs, code = self.paths.logs_path / "slurm", self.folder / "code"
        self.site = make_site(self.config.cluster, jobs, self.ledger, code)
        if self.site.kind == "local":
            pick_device(self.config.device)  # before data is recorded for a device that is not here
        self._announce()
        report.write_report(self)
        try:
            with report.live_report(self):
                self._prepare_data()
                report.write_report(self)
                iterate(self)
        except BaseException as error:
            # Whatever it is, the page must not say that the run goes on.
            ctrl_c = isinstance(error, KeyboardInterrupt) and not str(error)
            report.write_report(self, failure="interrupted" if ctrl_c else one_line(error))
            raise
        self._close()

    def _open(self) -> None:
        begun = self._load()
        tables.claim(self)
        # With the folders that were found: whoever looks at the run later may have other settings.
        paths = dataclasses.replace(self.paths, tasks_path=self.config.paths.tasks_path)
        write_json(self.folder / "config.json", to_dict(dataclasses.replace(self.config, paths=paths)))
        if begun:
            tables.write_iteration_tables(self)
        else:
            self.save(self.state)

    def _load(self) -> bool:
        """Go on from the state file; False where there is none that can be used.

        Raises `StateError` where another configuration or another version made it.
        """
        if not self.state_file.exists():
            return False
        try:
            state = load_state(self.state_file)
        except DataError as error:
            damaged = self.state_file.with_name("state.json.damaged")
            self.state_file.replace(damaged)
            log.warning("%s; moved to %s, and found out again from the finished files", error, damaged.name)
            return False
        # Through JSON, as the recorded one went.
        here, recorded = to_dict(self.identity), dict(state.identity)
        differing = sorted(key for key in here.keys() | recorded.keys() if here.get(key) != recorded.get(key))
        if differing:
            key = differing[0]
            raise StateError(
                f"{self.state_file}: made by another configuration ({', '.join(differing)} differ: "
                f"{key} was {recorded.get(key)}, is {here.get(key)}); choose another results_path"
            )
        self.state = dataclasses.replace(state, outcome=None)
        return True

    def save(self, state: LoopState) -> None:
        self.state = state
        save_state(self.state_file, state)

    def _announce(self) -> None:
        config, tasks = self.config, self.tasks
        log.info("run %s in %s, jobs on %s", config.run_name, self.folder, self.site.kind)
        counts = f"{len(tasks.train)} tasks with expert data, {len(tasks.middle)} middle, {len(tasks.test)} held out"
        log.info("%s; up to %d iterations, success above %s", counts, config.max_iterations, config.success_threshold)
        if self.state.iterations:
            current = self.state.current
            where = f"in iteration {current.index}" if current else f"after iteration {self.state.next_index - 1}"
            log.info("continuing %s", where)
        if self.state.next_index > config.max_iterations:
            done = len(self.state.closed().iterations)
            log.info("asked for %d iterations: %d are done and kept, nothing is begun", config.max_iterations, done)

    def _prepare_data(self) -> None:
        """Record what is missing, or raise `DataError` for the first missing file before anything runs.

        Raises `StateError` where the run was begun with other data.
        """
        if self.config.collect is not None:
            from envs.collect import collect

            collect(
                self.tasks.train,
                self.config.collect,
                self.paths.data_path,
                dataset_type=self.config.dataset_type,
                workers=cpu_count(),
            )
        files = expert_files(self.paths.data_path, self.config.dataset_type, self.tasks.train)
        keys = {task.name: key_of(file) for task, file in zip(self.tasks.train, files, strict=True)}
        for task, file in zip(self.tasks.train, files, strict=True):
            if self.state.expert_data.get(task.name, keys[task.name]) != keys[task.name]:
                raise StateError(
                    f"{file}: not the file that {self.state_file} was begun with; choose another results_path"
                )
        self.save(dataclasses.replace(self.state, expert_data=keys))

    def seeds(self, task: Task) -> tuple[int, ...]:
        return self.config.rl_seeds if task in self.tasks.test else self.config.middle_seeds

    # The stages of an iteration, each as its list of jobs.

    def generator_stage(self, iteration: Iteration) -> TrainGenerator:
        config = self.config
        sources = tuple((stage.task, stage.output) for stage in self.source_stages(iteration))
        return TrainGenerator(
            data_path=self.paths.data_path,
            dataset_type=config.dataset_type,
            expert_tasks=self.tasks.train,
            sources=sources,
            network=config.network,
            training=self._training(iteration.index),
            seed=config.diffusion_seed,
            checkpoint=self._checkpoint(iteration.index),
            initial=self._checkpoint(iteration.index - 1) if self._starts_warm(iteration.index) else None,
            device=config.device,
            devices=config.resources.diffusion.gpus,
        )

    def _starts_warm(self, iteration: int) -> bool:
        return iteration > 0 and self.config.training.warm_start_steps > 0

    def _training(self, iteration: int) -> TrainConfig:
        training = self.config.training
        warm = self._starts_warm(iteration)
        return dataclasses.replace(training, steps=training.warm_start_steps) if warm else training

    def _checkpoint(self, iteration: int) -> Path:
        name = self.config.model_name(iteration)
        return model_file(self.paths.results_path, iteration, name, self._training(iteration).steps)

    def source_stages(self, iteration: Iteration) -> list[Generate | Practise]:
        """What made the accepted sets that train an iteration's generator."""
        return [self._maker(i, task) for i, tasks in sorted(iteration.sources.items()) for task in tasks]

    def _maker(self, iteration: int, task: Task) -> Generate | Practise:
        """What made the set of a task that an iteration accepted."""
        done = [it.selection for it in self.state.iterations if it.index == iteration and it.complete]
        practised = any(task in selection.practised for selection in done)
        return self._practice(iteration, task) if practised else self._generation(iteration, task)

    def generation_stages(self, iteration: Iteration) -> list[Generate]:
        return [self._generation(iteration.index, task) for task in iteration.targets]

    def _generation(self, iteration: int, task: Task) -> Generate:
        config = self.config
        settings = {"device": config.device, "ground": config.ground}
        return Generate(task, self._checkpoint(iteration), config.sampling, config.diffusion_seed, **settings)

    def practice_stages(self, iteration: Iteration, tasks: Sequence[Task] | None = None) -> list[Practise]:
        """Of the tasks that are given; without, of those whose generated sets are not good enough."""
        tasks = self.to_practise(iteration) if tasks is None else tasks
        return [self._practice(iteration.index, task) for task in tasks]

    def to_practise(self, iteration: Iteration) -> list[Task]:
        """The targets whose policies, trained on the generated set alone, are not above the threshold."""
        if not self.config.practice.rounds:
            return []
        if iteration.complete:
            return [task for task in iteration.targets if task in iteration.practised]
        limit = Fraction(self.state.threshold.value)
        return [task for task in iteration.targets if (rate := iteration.rate(task)) is not None and rate <= limit]

    def _practice(self, iteration: int, task: Task) -> Practise:
        config, made = self.config, self._generation(iteration, task)
        settings = (config.practice, config.sampling, config.policy, config.diffusion_seed, config.device)
        return Practise(task, made.checkpoint, made.output, *settings)

    def policy_stages(self, iteration: Iteration) -> list[TrainPolicy | TrainPolicies]:
        """Policies of the generated sets alone."""
        hopeless = self.hopeless(iteration)
        tasks = [task for task in iteration.targets if task not in iteration.failed and task not in hopeless]
        return self._policies(iteration, [(task, self._generation(iteration.index, task).output) for task in tasks])

    def practised_policy_stages(self, iteration: Iteration) -> list[TrainPolicy | TrainPolicies]:
        """Policies of the practised sets that are there."""
        stages = [stage for stage in self.practice_stages(iteration) if is_complete(stage.output)]
        return self._policies(iteration, [(stage.task, stage.output) for stage in stages], practised=True)

    def _policies(
        self, iteration: Iteration, sets: Sequence[tuple[Task, Path]], *, practised: bool = False
    ) -> list[TrainPolicy | TrainPolicies]:
        config, i = self.config, iteration.index
        where = (self.paths.results_path, i, config.model_name(i))
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
            for seed in self.seeds(task)
        ]
        return in_groups(stages, config.policy.group)

    def hopeless(self, iteration: Iteration) -> dict[Task, str]:
        """Tasks whose generated sets no policy need try, and why; none unless `quality.skip`."""
        if not self.config.quality.skip:
            return {}
        known = {stage.task: stage.quality() for stage in self.generation_stages(iteration)}
        reasons = {task: quality.hopeless(self.config.quality) for task, quality in known.items() if quality}
        return {task: reason for task, reason in reasons.items() if reason}

    def train_generator(self, iteration: Iteration) -> None:
        """Stage 1. Raises `JobError` where training fails for good: without a generator there is no iteration."""
        stage, sources = self.generator_stage(iteration), self.source_stages(iteration)
        if is_sound(stage.output):
            gone = [each.output for each in sources if not is_complete(each.output)]
            if gone:
                log.warning("accepted sets are gone, but the generator has learned from them: %s", _listed(gone))
                return
        else:
            self._make_again([each for each in sources if not is_sound(each.output)])
        self._log_stage(iteration, "train the generator", 1)
        failed = self._run([stage], "diffusion", lambda stage: "trained")
        if failed:
            raise JobError(f"iteration {iteration.index}: training the generator failed: {next(iter(failed.values()))}")

    def _make_again(self, lost: Sequence[Generate | Practise]) -> None:
        """Generate accepted sets that are gone or damaged. Raises `DataError` where their generator is gone as well."""
        accepted = self.state.accepted_in()
        for stage in lost:
            where = f"accepted in iteration {accepted[stage.task]}"
            what = f"{stage.output}: the set of {stage.task}, {where}, is gone or damaged"
            if not is_sound(stage.checkpoint):
                raise DataError(
                    f"{what}, and so is {stage.checkpoint}, which could make it again; put one of them back, or choose "
                    "another results_path"
                )
            log.warning("%s; it is made again", what)
        practised = [stage for stage in lost if isinstance(stage, Practise)]
        inputs = [self._generation(accepted[s.task], s.task) for s in practised if not is_sound(s.data)]
        generated = [*(stage for stage in lost if isinstance(stage, Generate)), *inputs]
        failed = self._run(generated, "generation", lambda stage: "generated again", timed=False) if generated else {}
        if practised and not failed:
            failed = self._run(practised, "practice", lambda stage: "practised again", timed=False)
        if failed:
            name, reason = next(iter(failed.items()))
            raise JobError(f"an accepted set could not be made again, {name}: {reason}")

    def generate(self, iteration: Iteration) -> None:
        """Stage 2. A task whose generation fails is marked, and tried again in the next iteration."""
        stages = self.generation_stages(iteration)
        for stage in stages:
            if any(seed not in iteration.scores.get(stage.task, {}) for seed in self.seeds(stage.task)):
                is_sound(stage.output)  # its policies are still to be trained
        self._log_stage(iteration, "generate", len(stages))
        failed = self._run(stages, "generation", lambda stage: f"{self.config.sampling.num_samples:,} transitions")
        tasks = tuple(stage.task for stage in stages if stage.name in failed)
        if len(tasks) == len(stages):
            raise JobError(f"iteration {iteration.index}: no data could be generated: {next(iter(failed.values()))}")
        self.save(self.state.update(failed=tasks))

    def validate(self, iteration: Iteration) -> None:
        """Stage 3. Where every set is hopeless there is nothing to score."""
        stages = self.policy_stages(iteration)
        self._log_stage(iteration, "train and test policies", len(stages))
        failed = self._score(stages, "scores")
        any_failed = bool(failed)
        failed |= {f"{task.name}'s set": reason for task, reason in self.hopeless(iteration).items()}
        unscored = [task for task in iteration.targets if task not in self.state.current.scores]
        for name, reason in failed.items():
            log.warning("%s has no score: %s", name, reason)
        if any_failed and len(unscored) == len(iteration.targets):
            raise JobError(f"iteration {iteration.index}: no policy could be trained: {next(iter(failed.values()))}")
        self.save(self.state.update(failed=tuple(unscored)))

    def _score(self, stages: Sequence[TrainPolicy | TrainPolicies], where: str) -> dict[str, str]:
        """Train and test policies; the names of those that failed, with reasons.

        Scores are saved in the iteration's `where` as they come. A task with a failed seed keeps the scores of its
        other seeds, and so do the others of a group in which one policy failed.
        """

        def on_done(stage: TrainPolicy | TrainPolicies) -> str:
            scores = {task: dict(seeds) for task, seeds in getattr(self.state.current, where).items()}
            for member in filter(is_done, stage.members):
                result = member.scores()
                score = Score(result.solved, result.trials, round(result.score, 3))
                scores.setdefault(member.task, {})[member.seed] = score
            self.save(self.state.update(**{where: scores}))
            return f"success {score.solved}/{score.trials}, return {score.mean_return:.0f}"

        failed = self._run(stages, "policy" if where == "scores" else "practised_policy", on_done)
        for stage in stages:
            if stage.name in failed and any(map(is_done, stage.members)):
                on_done(stage)
        return failed

    def practise(self, iteration: Iteration) -> None:
        """If asked for: practise on the tasks that are not solved by their sets alone, and test policies of that.

        A task whose practice fails keeps the score of its generated set.
        """
        stages = self.practice_stages(iteration)
        if not stages:
            return
        self._log_stage(iteration, "practise", len(stages))
        failed = self._run(stages, "practice", lambda stage: "practised")
        policies = self.practised_policy_stages(iteration)
        self._log_stage(iteration, "train and test policies of practised sets", len(policies))
        failed |= self._score(policies, "practised")
        for name, reason in failed.items():
            log.warning("%s has no score: %s", name, reason)

    def _log_stage(self, iteration: Iteration, what: str, jobs: int) -> None:
        log.info("iteration %d: %s (%d job%s)", iteration.index, what, jobs, "" if jobs == 1 else "s")

    def _run(self, stages: Sequence, stage_name: str, on_done: Callable, *, timed: bool = True) -> dict[str, str]:
        started = time.monotonic()
        resources = self.config.resources.of(stage_name)
        group = self._group(stage_name)
        failed = run_jobs(stages, resources, self.site, self.ledger, group, self.config.retry, on_done)
        if self.site.kind == "slurm":
            usage.ask_accounting(self)
        if not timed:
            return failed
        seconds = dict(self.state.current.seconds)
        seconds[stage_name] = round(seconds.get(stage_name, 0.0) + time.monotonic() - started, 1)
        self.save(self.state.update(seconds=seconds))
        return failed

    def _group(self, stage_name: str) -> Group:
        """Logs are linked to where the published code writes them."""
        iteration = self.state.current.index

        def logs(stage: Stage) -> Path:
            if not isinstance(stage, TrainPolicy):
                return self.paths.logs_path / "slurm"
            kind = "test" if stage.task in self.tasks.test else "middle"
            return tables.policies_folder(self) / f"policies_slurm_{kind}_{iteration}"

        return Group(self.config.run_name, stage_name, iteration, logs)

    def write_tables(self) -> None:
        tables.write_iteration_tables(self)
        write_practice_table(self, tables.policies_folder(self))
        report.write_report(self, pictures=True)

    def _close(self) -> None:
        tables.write_final_table(self)
        tables.write_best_datasets(self)
        report.write_report(self, pictures=True)


def iterate(loop: Loop) -> None:
    """The algorithm: train the generator on the pool, generate every unsolved task, validate, keep the good sets."""
    config = loop.config
    rule = ThresholdRule(
        _decimal(config.threshold_reduction_amount), config.threshold_reduction_cycle, _decimal(config.min_threshold)
    )
    while True:
        state = loop.state
        if state.current is None:
            targets = state.remaining(loop.tasks.generated)
            if not targets:
                return loop.save(state.end("all tasks solved"))
            if state.next_index >= config.max_iterations:
                return loop.save(state.end(f"{state.next_index} iterations done"))
            phase = phase_of(state.next_index, config.curriculum_seed)
            sources = filter_sources(state.accepted(), phase)
            loop.save(state.begin(Iteration(state.next_index, targets, sources, str(phase) if phase else None)))
            _log_iteration(loop.state.current, state.threshold)
        elif state.current.index >= config.max_iterations:
            i = state.current.index
            return loop.save(state.end(f"{i} iterations done; {i} was begun, --max_iterations {i + 1} goes on with it"))

        loop.train_generator(loop.state.current)
        loop.generate(loop.state.current)
        loop.validate(loop.state.current)
        loop.practise(loop.state.current)

        current = loop.state.current
        rates = current.rates()
        selection = select(rates, loop.state.threshold, rule)
        practised = tuple(filter(current.by_practice, selection.good))
        loop.save(loop.state.finish(dataclasses.replace(selection, practised=practised)))
        _log_selection(loop, rates)
        loop.write_tables()


def _listed(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _log_iteration(iteration: Iteration, threshold: Threshold) -> None:
    sets = sum(len(tasks) for tasks in iteration.sources.values())
    phase = f", curriculum {iteration.phase}" if iteration.phase else ""
    log.info(
        "iteration %d: %d tasks to solve, pool of expert data and %d generated sets, threshold %s%s",
        iteration.index,
        len(iteration.targets),
        sets,
        threshold.value,
        phase,
    )


def _log_selection(loop: Loop, rates: dict) -> None:
    iteration = loop.state.iterations[-1]
    selection = iteration.selection
    for task, rate in sorted(rates.items(), key=lambda item: -item[1]):
        kind = "held out" if task in loop.tasks.test else "middle"
        practised = task in selection.practised
        verdict = ("good by practice" if practised else "good") if task in selection.good else ""
        log.info("        %-40s %-8s %.2f  %s", task, kind, float(rate), verdict)
    if selection.reduced_from is not None:
        log.info("threshold lowered from %s to %s", selection.reduced_from, selection.threshold.value)
    for task in iteration.failed:
        log.warning("        %s has no score; it is tried again in the next iteration", task)
    remaining = len(loop.state.remaining(loop.tasks.generated))
    log.info(
        "iteration %d: %d good, %d still to solve (%s)",
        iteration.index,
        len(selection.good),
        remaining,
        duration(sum(iteration.seconds.values())),
    )
