"""A run's generators as policies: what the policies of their sets may learn at best, before any of them is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corl.acting import Acting
from corl.evaluate import evaluate, finite
from diffusion.ensemble import expected_by_all
from diffusion.model import DiffusionModel
from envs.pool import EnvPool
from offline_compositional_rl_datasets.task import Task
from pipeline.loop.plan import generator_stages
from pipeline.loop.run import Run, found_in
from pipeline.loop.state import Iteration
from pipeline.stages.evaluators import environments_for
from runtime.atomic import is_complete
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import DataError
from runtime.intervals import wilson
from runtime.seeds import derive_seed
from runtime.tables import write_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratorPolicy:
    """Acts as the generators expect of a state on average; `acting` varies its actions as the clones' are varied."""

    models: Sequence[DiffusionModel]
    task: Task
    state_noise: float
    acting: Acting

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """Actions (B, A) float32 within [-1, 1] of states (B, S). Raises `DataError` for ones that are not finite."""
        rows = expected_by_all(self.models, states, self.task.one_hot, state_noise=self.state_noise)
        return finite(rows[:, self.task.layout.action], "the generator")


@dataclass(frozen=True)
class GeneratorScore:
    """`solved` of `episodes` episodes at their last step, as a policy's are counted."""

    task: Task
    solved: int
    episodes: int
    mean_return: float


def score_generators(
    run: Run,
    iteration: int | None,
    tasks: Sequence[Task],
    episodes: int,
    *,
    device: str = "auto",
    seed: int = 0,
) -> Iterator[GeneratorScore]:
    """Task by task, with all generators of an iteration (None: the last whose generators are trained).

    Raises `DataError` where there are none.
    """

    def trained(it: Iteration) -> list[Path]:
        files = [stage.checkpoint for stage in generator_stages(run, it)]
        return files if all(map(is_complete, files)) else []

    files = found_in(run, iteration, trained)
    if not files:
        which = "in no iteration" if iteration is None else f"iteration {iteration}: not"
        raise DataError(f"{run.folder}: {which} all of its generators are trained")
    log.info("generators: %s", ", ".join(map(str, files)))
    where, config = pick_device(device), run.config
    models = [DiffusionModel.load(file, run.family.layout, where) for file in files]
    for task in tasks:
        acting = config.policy.acting(task.layout)
        policy = GeneratorPolicy(models, task, config.sampling.state_noise, acting)
        seeds = [derive_seed("generator as a policy", seed, task.name, episode) for episode in range(episodes)]
        count = environments_for(0, episodes)
        with EnvPool(task, count, workers=cpu_count(), horizon=config.policy.horizon) as environment:
            result = evaluate(policy, environment, seeds)
        yield GeneratorScore(task, result.solved, result.episodes, result.mean_return)


def write_scores(path: Path, scores: Sequence[GeneratorScore]) -> None:
    """A row per task, with the 95 % interval (Wilson) of its success rate."""
    rows = []
    for score in scores:
        low, high = wilson(score.solved, score.episodes)
        row = {"task": score.task.name, "solved": score.solved, "episodes": score.episodes}
        rows.append(row | {"low": low, "high": high, "mean_return": score.mean_return})
    write_csv(path, ["task", "solved", "episodes", "low", "high", "mean_return"], rows)
