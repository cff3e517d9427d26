"""The loop's stages as functions from files to files. The one place where learners meet the simulator.

Each stage writes an artifact whose side file holds a key: a hash of the configuration and of its inputs' keys. A stage
whose artifact is there with the same key is done; one that was made otherwise is refused, not overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from corl.policy import load_checkpoint
from corl.train import RESUME_FILE, PolicyConfig, PolicyScores, train_policy
from diffusion.config import RUNTIME_SETTINGS, DenoiserConfig, SamplerConfig, TrainConfig
from offline_compositional_rl_datasets.hdf5 import find_task_file, read_expert
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.samples import SAMPLES_FILE, read_samples, write_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.atomic import artifact_info, commit_artifact
from runtime.config import config_hash, to_dict
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import DataError, StateError
from runtime.metrics import read_metrics
from runtime.provenance import provenance
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)

RESULT_FILE = "result.json"
_END_BYTES = 1 << 20


def model_folder(results_path: Path, iteration: int, model_name: str) -> Path:
    return Path(results_path) / f"augmented_{iteration}" / "diffusion" / model_name


def model_file(results_path: Path, iteration: int, model_name: str, steps: int) -> Path:
    return model_folder(results_path, iteration, model_name) / f"model-{steps}.pt"


def samples_file(results_path: Path, iteration: int, model_name: str, task: Task) -> Path:
    return model_folder(results_path, iteration, model_name) / task.name / SAMPLES_FILE


def policy_folder(results_path: Path, iteration: int, model_name: str, task: Task, seed: int) -> Path:
    return Path(results_path) / f"augmented_{iteration}" / "policies" / model_name / f"{task.name}_RLseed{seed}"


@dataclass(frozen=True)
class StageProgress:
    """How far a running stage is: for people, and as a fraction (0 while nothing is known)."""

    text: str
    fraction: float = 0.0


@dataclass(frozen=True)
class TrainGenerator:
    """Stage 1: train the generator on the expert sets of `expert_tasks` and the accepted sample files `sources`."""

    data_path: Path
    dataset_type: str
    expert_tasks: tuple[Task, ...]
    sources: tuple[tuple[Task, Path], ...]
    network: DenoiserConfig
    training: TrainConfig
    seed: int
    checkpoint: Path
    initial: Path | None = None
    device: str = "auto"
    threads: int = 0

    @property
    def name(self) -> str:
        return f"train {self.checkpoint.parent.name}"

    @property
    def output(self) -> Path:
        return self.checkpoint

    def key(self) -> str:
        expert = [
            (task.name, key_of(find_task_file(self.data_path, self.dataset_type, task))) for task in self.expert_tasks
        ]
        sources = [(task.name, key_of(path)) for task, path in self.sources]
        initial = key_of(self.initial) if self.initial else None
        settings = [to_dict(self.network), _without_runtime(self.training), self.seed, initial]
        return config_hash([expert, sources, *settings])

    def progress(self) -> StageProgress:
        rows = read_metrics(self.checkpoint.parent / "metrics.jsonl")
        if not rows:
            return StageProgress("reading data")
        step, steps = rows[-1]["step"], self.training.steps
        return StageProgress(f"step {step:,}/{steps:,}, loss {rows[-1]['loss']:.4f}", step / steps)

    def __call__(self) -> None:
        from diffusion.train import Pool, train

        with _stage(self, self.checkpoint.parent) as key:
            if key is None:
                return
            _use_threads(self.threads)
            _discard_damaged(self.checkpoint.parent / RESUME_FILE)
            parts = [self._expert(task) for task in self.expert_tasks]
            parts += [read_samples(path, task) for task, path in self.sources]
            pool = Pool.of(parts, COMPOSUITE)
            started = time.monotonic()
            train(
                pool,
                self.network,
                self.training,
                COMPOSUITE,
                self.checkpoint,
                seed=self.seed,
                device=pick_device(self.device),
                initial=self.initial,
                info={"key": key, "rows": len(pool.matrix), "tasks": len(parts), **provenance()},
            )
            log.info("%s: %d rows, %.0f s", self.name, len(pool.matrix), time.monotonic() - started)

    def _expert(self, task: Task) -> Transitions:
        path = find_task_file(self.data_path, self.dataset_type, task)
        return read_expert(path, task, episode_ends=self.training.episode_ends)


@dataclass(frozen=True)
class Generate:
    """Stage 2: draw the sample file of one task from a generator. Needs nothing of the task but its name."""

    task: Task
    checkpoint: Path
    sampling: SamplerConfig
    seed: int
    device: str = "auto"
    threads: int = 0

    @property
    def name(self) -> str:
        return f"generate {self.task.name}"

    @property
    def output(self) -> Path:
        return self.checkpoint.parent / self.task.name / SAMPLES_FILE

    def key(self) -> str:
        return config_hash([key_of(self.checkpoint), self.task.name, to_dict(self.sampling), self.seed])

    def progress(self) -> StageProgress:
        return StageProgress(f"{self.sampling.num_samples:,} samples")

    def __call__(self) -> None:
        from diffusion.generate import generate
        from diffusion.model import DiffusionModel

        with _stage(self, self.output.parent) as key:
            if key is None:
                return
            _use_threads(self.threads)
            model = DiffusionModel.load(self.checkpoint, COMPOSUITE, pick_device(self.device))
            # Every task of every iteration has noise of its own: equal noise would tie the sets together.
            seed = derive_seed("generate", self.seed, self.task.name, self.checkpoint.parent.name)
            matrix = generate(model, self.task.one_hot, self.sampling, seed=seed, label=self.name)
            matrix[:, COMPOSUITE.action] = matrix[:, COMPOSUITE.action].clip(-1.0, 1.0)
            info = {"key": key, "task": self.task.name, "model": str(self.checkpoint), **provenance()}
            write_samples(self.output, Transitions.from_matrix(matrix, self.task), info)


@dataclass(frozen=True)
class TrainPolicy:
    """Stage 3: train a policy on one set alone (a sample file, or expert data) and measure it in the simulator."""

    task: Task
    data: Path
    synthetic: bool
    policy: PolicyConfig
    seed: int
    folder: Path
    device: str = "auto"
    threads: int = 0

    @property
    def name(self) -> str:
        return f"policy {self.task.name} seed {self.seed}"

    @property
    def output(self) -> Path:
        return self.folder / RESULT_FILE

    def key(self) -> str:
        return config_hash([key_of(self.data), self.task.name, to_dict(self.policy), self.seed])

    def progress(self) -> StageProgress:
        rows = read_metrics(self.folder / "metrics.jsonl")
        if not rows:
            return StageProgress(f"training on {self.data.name}")
        step, steps = rows[-1]["step"], self.policy.max_timesteps
        return StageProgress(f"step {step:,}/{steps:,}, success {rows[-1]['success_rate']:.2f}", step / steps)

    def scores(self) -> PolicyScores:
        """The result of a finished job."""
        return PolicyScores(**json.loads(self.output.read_text())["scores"])

    def __call__(self) -> None:
        from corl.evaluate import evaluate
        from envs.vector import VectorEnv

        with _stage(self, self.folder) as key:
            if key is None:
                return
            _use_threads(self.threads)
            _discard_damaged(self.folder / RESUME_FILE)
            transitions = read_samples(self.data, self.task) if self.synthetic else read_expert(self.data, self.task)
            episodes = max(self.policy.n_episodes, min(self.policy.fresh_episodes, 50))
            cores = self.threads or cpu_count()
            workers = cores if cores > 1 else 0
            with VectorEnv(self.task, episodes, workers=workers, horizon=self.policy.horizon) as environment:
                scores = train_policy(
                    transitions,
                    self.policy,
                    lambda policy, seeds: evaluate(policy, environment, seeds),
                    self.folder,
                    seed=self.seed,
                    device=pick_device(self.device),
                    label=self.name,
                    key=key,
                )
            record = {"task": self.task.name, "seed": self.seed, "scores": asdict(scores), "data": str(self.data)}
            text = json.dumps(record, indent=2) + "\n"
            commit_artifact(self.output, lambda temporary: temporary.write_text(text), {"key": key, **provenance()})
            (self.folder / RESUME_FILE).unlink(missing_ok=True)
            log.info(
                "%s: %d/%d solved (best evaluation %d/%d), return %.0f",
                self.name,
                scores.solved,
                scores.trials,
                scores.best_solved,
                scores.episodes,
                scores.score,
            )


Stage = TrainGenerator | Generate | TrainPolicy


def is_done(stage: Stage) -> bool:
    """Whether the stage's artifact is there, complete and made from the same inputs.

    Raises `StateError` where it was made from others.
    """
    info = artifact_info(stage.output)
    if info is None:
        return False
    if info.get("key") != stage.key():
        raise StateError(
            f"{stage.output}: made by another configuration or from other inputs; "
            "choose another results folder or move it away"
        )
    return True


@contextlib.contextmanager
def _stage(stage: Stage, folder: Path) -> Iterator[str | None]:
    """Hold the stage's lock; gives its key, or None where it is done already.

    The lock goes with the process, so a job left over by a killed loop and its successor never write side by side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lock"):
        yield None if is_done(stage) else stage.key()


def _discard_damaged(resume_file: Path) -> None:
    """Remove a checkpoint that cannot be read (cut off by a lost machine): training starts anew without it."""
    try:
        if resume_file.exists():
            load_checkpoint(resume_file)
    except DataError as error:
        log.warning("%s; training starts anew", error)
        resume_file.unlink()


def key_of(artifact: Path) -> str:
    """The key of an input: the one in its side file, else (a file made elsewhere) its size and ends.

    Raises `DataError` where there is no such file.
    """
    info = artifact_info(artifact)
    if info and "key" in info:
        return info["key"]
    try:
        with artifact.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            return hashlib.sha256(ends + file.read() + str(size).encode()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{artifact}: no such file; the stage before makes it") from error


def _without_runtime(training: TrainConfig) -> Mapping[str, Any]:
    """Settings that change the result; how often to log or save does not."""
    return {key: value for key, value in to_dict(training).items() if key not in RUNTIME_SETTINGS}


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def expert_files(data_path: Path, dataset_type: str, tasks: Sequence[Task]) -> list[Path]:
    """The files of all tasks; raises `DataError` for the first that is missing."""
    return [find_task_file(data_path, dataset_type, task) for task in tasks]
