"""The steps of an iteration as jobs. What they came to is in the state, which is saved whenever it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.jobs.attempts import Group, Ledger
from pipeline.jobs.queue import Site, run_jobs
from pipeline.jobs.stage import Stage
from pipeline.jobs.usage import ask_accounting
from pipeline.loop.observer import Observer
from pipeline.loop.plan import (
    generation_jobs,
    generation_stage,
    generation_stages,
    generator_stages,
    policy_stages,
    practice_stages,
    practised_policy_stages,
    rejected,
    source_stages,
)
from pipeline.loop.run import Run
from pipeline.loop.selection import Score, Selection, Threshold
from pipeline.loop.state import Iteration, LoopState
from pipeline.loop.state_file import save_state
from pipeline.loop.upkeep import is_sound
from pipeline.stages.generator import Generate
from pipeline.stages.policy import TrainPolicies, TrainPolicy
from pipeline.stages.practice import Practise
from runtime.atomic import is_complete
from runtime.errors import DataError, JobError
from runtime.logs import duration

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Stage)


class Steps:
    """A run under way: `run` is what it is at this moment. The steps are those of `run.state.current`."""

    def __init__(self, run: Run, site: Site, ledger: Ledger, observers: Sequence[Observer] = ()) -> None:
        self.run, self.site, self.ledger, self.observers = run, site, ledger, observers

    @property
    def state(self) -> LoopState:
        return self.run.state

    @property
    def iteration(self) -> Iteration:
        """The one under way, as it is now."""
        if self.state.current is None:
            raise RuntimeError("no iteration is under way")
        return self.state.current

    def save(self, state: LoopState) -> None:
        self.run = self.run.at(state)
        save_state(self.run.state_file, state)

    def begin(self, iteration: Iteration) -> None:
        self.save(self.state.begin(iteration))
        _log_iteration(iteration, self.state.threshold)

    def finish(self, selection: Selection) -> None:
        self.save(self.state.finish(selection))
        _log_selection(self.run)
        for observer in self.observers:
            observer.judged(self.run)

    def train_generator(self) -> None:
        """Stage 1. Raises `JobError` where training fails for good: without a generator there is no iteration."""
        iteration = self.iteration
        stages, sources = generator_stages(self.run, iteration), source_stages(self.run, iteration)
        sound = [is_sound(stage.output) for stage in stages]
        if all(sound):
            gone = [each.output for each in sources if not is_complete(each.output)]
            if gone:
                log.warning("accepted sets are gone, but the generator has learned from them: %s", _listed(gone))
                return
        else:
            self._make_again([each for each in sources if not is_sound(each.output)])
        self._log_stage("train the generator", len(stages))
        failed = self._run(stages, "diffusion", lambda stage: "trained")
        if failed:
            raise JobError(f"iteration {iteration.index}: training the generator failed: {next(iter(failed.values()))}")

    def _make_again(self, lost: Sequence[Generate | Practise]) -> None:
        """Generate accepted sets that are gone or damaged. Raises `DataError` where their generator is gone as well."""
        accepted = self.state.accepted_in()
        for stage in lost:
            where = f"accepted in iteration {accepted[stage.task]}"
            what = f"{stage.output}: the set of {stage.task}, {where}, is gone or damaged"
            for checkpoint in (stage.checkpoint, *stage.others):
                if not is_sound(checkpoint):
                    raise DataError(
                        f"{what}, and so is {checkpoint}, which could make it again; put one of them back, or choose "
                        "another results_path"
                    )
            log.warning("%s; it is made again", what)
        practised = [stage for stage in lost if isinstance(stage, Practise)]
        inputs = [generation_stage(self.run, accepted[s.task], s.task) for s in practised if not is_sound(s.data)]
        generated = [*(stage for stage in lost if isinstance(stage, Generate)), *inputs]
        failed = self._run(generated, "generation", lambda stage: "generated again", timed=False) if generated else {}
        if practised and not failed:
            failed = self._run(practised, "practice", lambda stage: "practised again", timed=False)
        if failed:
            name, reason = next(iter(failed.items()))
            raise JobError(f"an accepted set could not be made again, {name}: {reason}")

    def generate(self) -> None:
        """Stage 2. A task whose generation fails is marked, and tried again in the next iteration."""
        iteration = self.iteration
        stages = generation_stages(self.run, iteration)
        for stage in stages:
            if any(seed not in iteration.scores.get(stage.task, {}) for seed in self.run.seeds(stage.task)):
                is_sound(stage.output)  # its policies are still to be trained
        jobs, rows = generation_jobs(self.run, iteration), self.run.config.sampling.num_samples
        self._log_stage("generate", len(jobs))
        failed = self._run(jobs, "generation", lambda job: f"{len(job.members) * rows:,} transitions")
        lost = [member for job in jobs if job.name in failed for member in job.members]
        tasks = tuple(stage.task for stage in lost if not is_complete(stage.output))
        if len(tasks) == len(stages):
            raise JobError(f"iteration {iteration.index}: no data could be generated: {next(iter(failed.values()))}")
        self.save(self.state.update(failed=tasks))

    def validate(self) -> None:
        """Stage 3. Where every set is rejected there is nothing to score."""
        iteration = self.iteration
        stages = policy_stages(self.run, iteration)
        self._log_stage("train and test policies", len(stages))
        failed = self._score(stages, "scores")
        any_failed = bool(failed)
        failed |= {f"{task.name}'s set": reason for task, reason in rejected(self.run, iteration).items()}
        unscored = [task for task in iteration.targets if task not in self.iteration.scores]
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
            scores = {task: dict(seeds) for task, seeds in getattr(self.iteration, where).items()}
            for member in (member for member in stage.members if member.is_done()):
                result = member.scores()
                score = Score(result.solved, result.trials, round(result.score, 3))
                scores.setdefault(member.task, {})[member.seed] = score
            self.save(self.state.update(**{where: scores}))
            return f"success {score.solved}/{score.trials}, return {score.mean_return:.0f}"

        failed = self._run(stages, "policy" if where == "scores" else "practised_policy", on_done)
        for stage in stages:
            if stage.name in failed and any(member.is_done() for member in stage.members):
                on_done(stage)
        return failed

    def practise(self) -> None:
        """If asked for: practise on the tasks that are not solved by their sets alone, and test policies of that.

        A task whose practice fails keeps the score of its generated set.
        """
        iteration = self.iteration
        stages = practice_stages(self.run, iteration)
        if not stages:
            return
        self._log_stage("practise", len(stages))
        failed = self._run(stages, "practice", lambda stage: "practised")
        policies = practised_policy_stages(self.run, iteration)
        self._log_stage("train and test policies of practised sets", len(policies))
        failed |= self._score(policies, "practised")
        for name, reason in failed.items():
            log.warning("%s has no score: %s", name, reason)

    def _log_stage(self, what: str, jobs: int) -> None:
        log.info("iteration %d: %s (%d job%s)", self.iteration.index, what, jobs, "" if jobs == 1 else "s")

    def _run(
        self, stages: Sequence[S], name: str, on_done: Callable[[S], str], *, timed: bool = True
    ) -> dict[str, str]:
        """Run them as jobs; the names of those that failed for good, with reasons."""
        started = time.monotonic()
        resources = self.run.config.resources.of(name)
        group = self._group(name)
        failed = run_jobs(stages, resources, self.site, self.ledger, group, self.run.config.retry, on_done)
        if self.site.kind == "slurm":
            ask_accounting(self.run.jobs_folder, self.run.config.run_name, self.run.folder)
        if not timed:
            return failed
        seconds = dict(self.iteration.seconds)
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started, 1)
        self.save(self.state.update(seconds=seconds))
        return failed

    def _group(self, name: str) -> Group:
        """Logs are linked to where the published code writes them."""
        run, iteration = self.run, self.iteration.index

        def logs(stage: Stage) -> Path:
            if not isinstance(stage, TrainPolicy):
                return run.jobs_folder
            kind = "test" if stage.task in run.tasks.test else "middle"
            return run.tables_folder / f"policies_slurm_{kind}_{iteration}"

        return Group(run.config.run_name, name, iteration, logs)


def _listed(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


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


def _log_selection(run: Run) -> None:
    iteration = run.state.iterations[-1]
    selection, rates = iteration.verdict, iteration.rates()
    for task, rate in sorted(rates.items(), key=lambda item: -item[1]):
        kind = "held out" if task in run.tasks.test else "middle"
        practised = task in selection.practised
        verdict = ("good by practice" if practised else "good") if task in selection.good else ""
        log.info("        %-40s %-8s %.2f  %s", task, kind, float(rate), verdict)
    if selection.reduced_from is not None:
        log.info("threshold lowered from %s to %s", selection.reduced_from, selection.threshold.value)
    for task in iteration.failed:
        log.warning("        %s has no score; it is tried again in the next iteration", task)
    remaining = len(run.state.remaining(run.tasks.generated))
    log.info(
        "iteration %d: %d good, %d still to solve (%s)",
        iteration.index,
        len(selection.good),
        remaining,
        duration(sum(iteration.seconds.values())),
    )
