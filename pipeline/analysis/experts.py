"""How good the experts of a family are, and how good policies are that learn from their recordings alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corl.config import PolicyConfig
from corl.evaluate import evaluate
from envs.collect import collect
from envs.family import Expert, family_of
from envs.pool import EnvPool
from envs.recording import CollectConfig
from offline_compositional_rl_datasets.hdf5 import task_file
from offline_compositional_rl_datasets.task import Task
from pipeline.stages.evaluators import environments_for
from pipeline.stages.policy import TrainPolicy
from runtime.seeds import derive_seed

HORIZON = 500


@dataclass(frozen=True)
class ExpertScore:
    """`solved` of `episodes` undisturbed episodes at the last step, and the mean return of 500 steps.

    `clone_solved` of `clone_episodes`: the same for a policy that was trained on the expert's recordings; 0 of 0
    where none was.
    """

    task: Task
    episodes: int
    solved: int
    mean_return: float
    clone_solved: int = 0
    clone_episodes: int = 0


@dataclass(frozen=True)
class CloneConfig:
    """How the expert is recorded and a policy trained on it; files go to `folder` and are kept for the next time."""

    collect: CollectConfig
    policy: PolicyConfig
    folder: Path


def score_experts(
    tasks: Sequence[Task],
    episodes: int,
    *,
    workers: int,
    clone: CloneConfig | None = None,
    choose_policy: Callable[[Task], Path] | None = None,
) -> Iterator[ExpertScore]:
    """Scores task by task: of the families' experts, or of the published policies that are chosen."""
    for task in tasks:
        policy = choose_policy(task) if choose_policy else None
        family = family_of(task)
        expert = family.expert(task) if policy is None else family.expert(task, policy)
        solved, mean_return = _solve(task, expert, episodes, workers)
        cloned = _clone(task, clone, workers, policy) if clone else (0, 0)
        yield ExpertScore(task, episodes, solved, mean_return, *cloned)


def _solve(task: Task, expert: Expert, episodes: int, workers: int) -> tuple[int, float]:
    seeds = [derive_seed("expert", task.name, episode) for episode in range(episodes)]
    with EnvPool(task, environments_for(0, episodes), workers=workers, horizon=HORIZON) as environment:
        result = evaluate(expert, environment, seeds)
    return result.solved, result.mean_return


def _clone(task: Task, config: CloneConfig, workers: int, policy: Path | None) -> tuple[int, int]:
    data = config.folder / "data"
    collect([task], config.collect, data, workers=workers, policies={task: policy} if policy else None)
    stage = TrainPolicy(
        task=task,
        data=task_file(data, "expert", task),
        synthetic=False,
        policy=config.policy,
        seed=0,
        folder=config.folder / "policies" / task.name,
        threads=workers,
    )
    stage()
    scores = stage.scores()
    return scores.solved, scores.trials
