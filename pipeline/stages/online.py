"""Online learning of one task as a stage: where the agents of `corl` meet the simulator and prior data."""

from __future__ import annotations

import abc
import contextlib
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from corl.evaluate import evaluate
from corl.online import (
    CHECKPOINT_FILE,
    Agent,
    OnlinePolicy,
    OnlineRun,
    OnlineScores,
    last_metrics,
    read_history,
    train_online,
)
from corl.online_config import RUNTIME_SETTINGS, OnlineConfig
from corl.online_replay import ObservationCode
from corl.rlpd import PriorData
from corl.sac import SAC
from envs.family import family_of
from envs.pool import EnvPool
from offline_compositional_rl_datasets.samples import SAMPLES_FILE, read_samples
from offline_compositional_rl_datasets.state_transform import EXPLORERS_LEAST_STD, StateTransform
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.jobs.stage import StageProgress, key_of, read_scores
from pipeline.stages.paths import RESULT_FILE
from pipeline.stages.score_table import SCORES_FILE, ScoreRow, write_score_table
from pipeline.stages.scored import ScoredStage
from runtime.checkpoint import load_checkpoint
from runtime.config import config_hash, dict_without, to_dict
from runtime.cpus import cpu_count, worker_count
from runtime.device import autocast_dtype, pick_device
from runtime.errors import DataError
from runtime.paths import path_part
from runtime.resumable import discard
from runtime.seeds import derive_seed
from runtime.trackers import trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracking:
    """Sinks beside the files: a W&B project (None: none), TensorBoard."""

    project: str | None = None
    tensorboard: bool = False


class OnlineStage(ScoredStage):
    """What every stage that learns online in one task does, whichever agent it has.

    A subclass is a frozen dataclass with these fields; it writes `key` and `_learn`.
    """

    task: Any  # with a name, and one that `EnvPool` makes environments of
    config: OnlineConfig
    seed: int
    folder: Path
    tracking: Tracking
    method: str  # its name in tables of scores
    device: str

    verb: ClassVar[str] = "online"

    @property
    def name(self) -> str:
        return f"{self.verb} {self.task.name} seed {self.seed}"

    @property
    def output(self) -> Path:
        return self.folder / RESULT_FILE

    def progress(self) -> StageProgress:
        return online_progress(self.folder, self.config.max_timesteps)

    def scores(self) -> OnlineScores:
        """The result of a finished run."""
        return read_scores(OnlineScores, self.output)

    def score_rows(self) -> list[ScoreRow]:
        """Every evaluation so far; `step` is the environment's."""
        return [
            ScoreRow(
                self.task.name,
                self.method,
                self.seed,
                int(row["global_step"]),
                int(row["solved"]),
                int(row["episodes"]),
                row["episodic_return"],
            )
            for row in read_history(self.folder)
        ]

    def summary(self) -> str:
        scores = self.scores()
        return f"{scores.last_solved}/{scores.episodes} solved, best {scores.best_solved}/{scores.episodes}"

    def work(self, key: str) -> None:
        """Learn, and write the result and `scores.csv`; what was kept to continue from is no longer needed."""
        scores = self._learn(key, pick_device(self.device))
        write_score_table(self.folder / SCORES_FILE, self.score_rows())
        self.commit({"task": self.task.name, "seed": self.seed, "scores": asdict(scores)}, key)
        discard(self.folder)
        shutil.rmtree(self.folder / "replay", ignore_errors=True)
        log.info("%s: %d/%d solved after %d steps", self.name, scores.last_solved, scores.episodes, scores.steps)

    @abc.abstractmethod
    def _learn(self, key: str, device: torch.device) -> OnlineScores:
        """Build the agent and `_train` it."""

    def _train(
        self, agent: Agent, code: Any, prior: PriorData | None, *, key: str, device: torch.device
    ) -> OnlineScores:
        """Carry the run to its end."""
        config, tracking, cores = self.config, self.tracking, self.threads or cpu_count()
        # On a CPU one core learns while the others step.
        workers = cores - 1 if device.type == "cpu" else cores
        options = {"horizon": config.horizon}
        settings = {"task": self.task.name, "seed": self.seed, **to_dict(config)}
        sinks = trackers(
            self.folder,
            settings,
            name=self.folder.name,
            project=tracking.project,
            tensorboard=tracking.tensorboard,
        )
        with (
            EnvPool(self.task, config.num_envs, workers=workers, **options) as environment,
            EnvPool(self.task, config.n_episodes, workers=worker_count(self.threads), **options) as judge,
            sinks as sink,
        ):
            run = OnlineRun(
                OnlinePolicy(agent, code, self.task, device),
                environment,
                config,
                self.folder,
                seed=self.seed,
                prior=prior,
                key=key,
                sink=sink,
            )
            return train_online(run, lambda policy, seeds: evaluate(policy, judge, seeds), label=self.name)


@dataclass(frozen=True)
class LearnOnline(OnlineStage):
    """SAC in one task, with prior data (sample files, or expert data where not `synthetic`) or without any."""

    task: Task
    config: OnlineConfig
    seed: int
    folder: Path
    prior: tuple[tuple[Task, Path], ...] = ()
    synthetic: bool = True
    tracking: Tracking = Tracking()
    method: str = "SAC"  # its name in tables of scores
    device: str = "auto"

    def key(self) -> str:
        settings = dict_without(self.config, RUNTIME_SETTINGS)
        prior = [(task.name, key_of(path)) for task, path in self.prior]
        return config_hash([self.task.name, settings, self.seed, prior, self.synthetic])

    def _code(self, prior: Sequence[Transitions]) -> ObservationCode:
        config = self.config
        options = {"canonical_quaternions": config.canonical_quaternions, "task_ids": config.task_ids}
        if not config.normalise:
            return ObservationCode(StateTransform.unscaled(self.task.layout, **options))
        parts = [part.states for part in prior]
        states = np.concatenate(parts) if parts else random_states(self.task, self.seed)
        layout, hidden = self.task.layout, config.hide_velocities
        return ObservationCode(
            StateTransform.fit(states, layout, hide_velocities=hidden, least_std=EXPLORERS_LEAST_STD, **options)
        )

    def _agent(self, code: ObservationCode, device: torch.device) -> SAC:
        dtype = autocast_dtype(device, self.config.precision)
        return SAC.build(code.dim, code.action_dim, self.config.sac, seed=self.seed, device=device, dtype=dtype)

    def best_policy(self) -> OnlinePolicy:
        """The policy of the best mean return, on the CPU. Raises `DataError` where there is no checkpoint yet."""
        cpu, code = torch.device("cpu"), self._code(self._prior_parts() if self.config.normalise else [])
        agent = self._agent(code, cpu)
        agent.load_state_dict(load_checkpoint(self.folder / CHECKPOINT_FILE)["agent"])
        return OnlinePolicy(agent, code, self.task, cpu)

    def _learn(self, key: str, device: torch.device) -> OnlineScores:
        parts = self._prior_parts()
        code = self._code(parts)
        agent, prior = self._agent(code, device), PriorData(parts, code, device) if parts else None
        return self._train(agent, code, prior, key=key, device=device)

    def _prior_parts(self) -> list[Transitions]:
        if self.synthetic:
            return [read_samples(path, task, task.layout) for task, path in self.prior]
        return [family_of(task).read_data(path, task) for task, path in self.prior]


def random_states(task: Task, seed: int, steps: int = 50, count: int = 8) -> np.ndarray:
    """States (count * steps, S) of episodes of random actions, to normalise by where there are no data."""
    random = np.random.default_rng(derive_seed("normalise", seed))
    with EnvPool(task, count, horizon=steps) as environment:
        states = [environment.reset([derive_seed("normalise", seed, i) for i in range(count)])]
        while len(states) < steps:
            states.append(environment.step(random.uniform(-1, 1, (count, task.layout.action_dim)))[0])
    return np.concatenate(states)


def online_progress(folder: Path, steps: int) -> StageProgress:
    row = last_metrics(folder)
    if row is None:
        return StageProgress("beginning")
    history = []
    with contextlib.suppress(DataError):  # told when the run needs it
        history = read_history(folder)
    success = f", success {history[-1]['success_rate']:.2f}" if history else ""
    return StageProgress(f"step {row['step']:,}/{steps:,}{success}", row["step"] / steps)


def synthetic_prior(root: Path, task: Task) -> tuple[tuple[Task, Path], ...]:
    """The task's set below `root`. Raises `DataError` naming the sets that are there where it has none."""
    path = Path(root) / task.name / SAMPLES_FILE
    if not path.exists():
        there = sorted(found.parent.name for found in Path(root).glob(f"*/{SAMPLES_FILE}"))
        raise DataError(f"{path}: no such sample file; {root} has sets of {', '.join(there) or 'no task'}")
    return ((task, path),)


def run_name(task: Task, exp_name: str, seed: int, data_root: Path | None = None) -> str:
    """`<family>_<task>__<exp_name>__<seed>`, with the set that it learns from: `__train<N>_<folder of the sets>`.

    The published code puts a path with slashes in the name, or the time: the same command then finds its run no more.
    Raises `ConfigError` for an `exp_name` that is no name of a folder.
    """
    name = f"{family_of(task).name}_{task.name}__{path_part('exp_name', exp_name)}__{seed}"
    if data_root is None:
        return name
    found = re.search(r"train(\d+)_", str(data_root))
    count = f"train{found.group(1)}_" if found else ""
    return f"{name}__{count}{Path(data_root).resolve().name}"
