"""The loop's stages as functions from files to files. The one place where learners meet the simulator.

Each stage writes an artifact whose side file holds a key: a hash of the configuration and of its inputs' keys. A stage
whose artifact is there with the same key is done; one that was made otherwise is refused, not overwritten.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from corl.config import RUNTIME_SETTINGS as POLICY_RUNTIME_SETTINGS
from corl.policy import load_checkpoint
from corl.train import RESUME_FILE, PolicyConfig, PolicyScores, train_policy
from diffusion.config import RUNTIME_SETTINGS, DenoiserConfig, SamplerConfig, TrainConfig
from offline_compositional_rl_datasets.hdf5 import EpisodeEnds, find_task_file, read_expert
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.samples import SAMPLES_FILE, read_samples, write_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.atomic import artifact_info, commit_artifact, read_json, write_json
from runtime.config import config_hash, to_dict
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import DataError, StateError
from runtime.lease import waiting_lock
from runtime.metrics import read_metrics
from runtime.provenance import provenance
from runtime.seeds import derive_seed, rng

if TYPE_CHECKING:
    from diffusion.quality import Quality

log = logging.getLogger(__name__)

RESULT_FILE = "result.json"
QUALITY_FILE = "quality.json"
PHYSICS_FILE = "physics.json"
_END_BYTES = 1 << 20


def model_folder(results_path: Path, iteration: int, model_name: str) -> Path:
    return Path(results_path) / f"augmented_{iteration}" / "diffusion" / model_name


def model_file(results_path: Path, iteration: int, model_name: str, steps: int) -> Path:
    return model_folder(results_path, iteration, model_name) / f"model-{steps}.pt"


def marginals_file(checkpoint: Path) -> Path:
    """Quantiles of the data that trained a generator, beside it."""
    return checkpoint.with_name("marginals.npz")


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
    devices: int = 1  # GPUs of one machine that train together

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
        """With several GPUs one process each trains; under torchrun this is one of them already."""
        from diffusion.distributed import World, spawn

        world = World.of_environment()
        devices = min(self.devices, torch.cuda.device_count())
        if devices > 1 and world.size == 1 and pick_device(self.device).type == "cuda":
            return spawn(dataclasses.replace(self, devices=1), devices)
        # The first process holds the lock for all.
        with _stage(self, self.checkpoint.parent) if world.leads else contextlib.nullcontext(self.key()) as key:
            self._train(key, leads=world.leads)
        return None

    def _train(self, key: str | None, *, leads: bool) -> None:
        from diffusion.quality import Marginals, save_marginals
        from diffusion.train import Pool, train

        if key is None:
            return
        _use_threads(self.threads)
        if leads:
            _discard_damaged(self.checkpoint.parent / RESUME_FILE)
        parts = [self._expert(task) for task in self.expert_tasks]
        parts += [read_samples(path, task) for task, path in self.sources]
        training = self.training
        pool = Pool.of(
            parts,
            COMPOSUITE,
            canonical=training.canonical_quaternions,
            timeouts_as_terminals=training.timeouts_as_terminals,
        )
        tasks = len(parts)
        del parts  # as large as the pool
        if leads:
            save_marginals(marginals_file(self.checkpoint), Marginals.of(pool.matrix, pool.task_index, pool.conditions))
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
            info={"key": key, "rows": len(pool.matrix), "tasks": tasks, **provenance()},
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

    @property
    def quality_file(self) -> Path:
        return self.output.with_name(QUALITY_FILE)

    def quality(self) -> Quality | None:
        """What is known of the set's quality before a policy is trained; None where nobody assessed it."""
        from diffusion.quality import Quality

        return Quality(**read_json(self.quality_file)) if self.quality_file.exists() else None

    def key(self) -> str:
        return config_hash([key_of(self.checkpoint), self.task.name, to_dict(self.sampling), self.seed])

    def progress(self) -> StageProgress:
        return StageProgress(f"{self.sampling.num_samples:,} samples")

    def __call__(self) -> None:
        from diffusion.generate import generate
        from diffusion.model import DiffusionModel
        from diffusion.partial import PartialSamples
        from diffusion.quality import assess, load_marginals

        with _stage(self, self.output.parent) as key:
            if key is None:
                return
            _use_threads(self.threads)
            model = DiffusionModel.load(self.checkpoint, COMPOSUITE, pick_device(self.device))
            # Every task of every iteration has noise of its own: equal noise would tie the sets together.
            seed = derive_seed("generate", self.seed, self.task.name, self.checkpoint.parent.name)
            seed = self.seed if self.sampling.shared_noise else seed
            partial = PartialSamples(self.output.with_name("partial"), key)
            matrix = generate(model, self.task.one_hot, self.sampling, seed=seed, label=self.name, partial=partial)
            marginals = load_marginals(marginals_file(self.checkpoint))
            quality = assess(matrix, self.task.one_hot, COMPOSUITE, marginals, rng("quality", self.seed))
            write_json(self.quality_file, asdict(quality))
            log.info("%s: %s", self.name, quality)
            if self.sampling.clip_actions:
                matrix[:, COMPOSUITE.action] = matrix[:, COMPOSUITE.action].clip(-1.0, 1.0)
            info = {"key": key, "task": self.task.name, "model": str(self.checkpoint), **provenance()}
            write_samples(self.output, Transitions.from_matrix(matrix, self.task), info)
            partial.discard()


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
    episode_ends: EpisodeEnds = "drop"  # of expert data

    @property
    def name(self) -> str:
        return f"policy {self.task.name} seed {self.seed}"

    @property
    def output(self) -> Path:
        return self.folder / RESULT_FILE

    @property
    def members(self) -> tuple[TrainPolicy, ...]:
        """The pairs of task and seed that this job takes."""
        return (self,)

    def key(self) -> str:
        settings = {key: value for key, value in to_dict(self.policy).items() if key not in POLICY_RUNTIME_SETTINGS}
        ends = [] if self.synthetic else [self.episode_ends]
        return config_hash([key_of(self.data), self.task.name, settings, self.seed, *ends])

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
        from pipeline.evaluators import environments_for

        with _stage(self, self.folder) as key:
            if key is None:
                return
            _use_threads(self.threads)
            _discard_damaged(self.folder / RESUME_FILE)
            environments = environments_for(self.policy.n_episodes, self.policy.fresh_episodes)
            cores = self.threads or cpu_count()
            workers = cores if cores > 1 else 0
            with VectorEnv(self.task, environments, workers=workers, horizon=self.policy.horizon) as environment:
                scores = train_policy(
                    self.transitions(),
                    self.policy,
                    lambda policy, seeds: evaluate(policy, environment, seeds),
                    self.folder,
                    seed=self.seed,
                    device=pick_device(self.device),
                    label=self.name,
                    key=key,
                )
            self.finish(scores, key)

    def transitions(self) -> Transitions:
        if self.synthetic:
            return read_samples(self.data, self.task)
        return read_expert(self.data, self.task, episode_ends=self.episode_ends)

    def finish(self, scores: PolicyScores, key: str) -> None:
        """Write the result; what was kept to continue from is no longer needed."""
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


@dataclass(frozen=True)
class TrainPolicies:
    """Stage 3 for many pairs at once: one process trains them all together, others evaluate them meanwhile."""

    members: tuple[TrainPolicy, ...]
    threads: int = 0

    @property
    def name(self) -> str:
        return f"policies {self.members[0].task.name} seed {self.members[0].seed} and {len(self.members) - 1} more"

    @property
    def output(self) -> Path:
        folders = [str(member.folder.name) for member in self.members]
        # A folder each: its lock is the group's own.
        return self.members[0].folder.parent / "groups" / config_hash(folders) / "group.json"

    def key(self) -> str:
        return config_hash([member.key() for member in self.members])

    def progress(self) -> StageProgress:
        parts = [member.progress() for member in self.members]
        fraction = sum(part.fraction for part in parts) / len(parts)
        return StageProgress(f"{len(parts)} policies, {parts[0].text}", fraction)

    def __call__(self) -> None:
        from corl.bulk import train_policies
        from corl.replay import ReplayData
        from corl.run import PolicyRun
        from pipeline.evaluators import Evaluators, environments_for

        with _stage(self, self.output.parent) as key, contextlib.ExitStack() as stack:
            if key is None:
                return
            keys = {member: stack.enter_context(_stage(member, member.folder)) for member in self.members}
            left = [member for member in self.members if keys[member] is not None]
            if left:
                policy, device = left[0].policy, pick_device(left[0].device)
                cores = self.threads or cpu_count()
                # On a CPU training and evaluation share the cores; beside a GPU evaluation has them all.
                workers = cores if device.type == "cuda" else max(1, cores // 2)
                _use_threads(cores if device.type == "cuda" else max(1, cores - workers))
                data = {}
                for member in left:
                    if member.data not in data:
                        data[member.data] = ReplayData.of(member.transitions(), policy, COMPOSUITE, device)
                runs = [
                    PolicyRun(
                        data[member.data],
                        policy,
                        member.folder,
                        seed=member.seed,
                        device=device,
                        layout=COMPOSUITE,
                        key=keys[member],
                    )
                    for member in left
                ]
                num_envs = environments_for(policy.n_episodes, policy.fresh_episodes)
                with Evaluators(workers, num_envs=num_envs, horizon=policy.horizon) as evaluators:
                    scores = train_policies(
                        runs,
                        policy,
                        lambda i, policy, seeds: evaluators.submit(left[i].task, policy, seeds),
                        label=self.name,
                    )
                for member, score in zip(left, scores, strict=True):
                    member.finish(score, keys[member])
            names = [member.folder.name for member in self.members]
            text = json.dumps({"members": names}, indent=2) + "\n"
            commit_artifact(self.output, lambda temporary: temporary.write_text(text), {"key": key, **provenance()})


def in_groups(stages: Sequence[TrainPolicy], size: int) -> list[TrainPolicy | TrainPolicies]:
    """The jobs for these policies, `size` of them each; neighbours, which share their data, stay together."""
    if size == 1:
        return list(stages)
    return [TrainPolicies(tuple(stages[i : i + size])) for i in range(0, len(stages), size)]


Stage = TrainGenerator | Generate | TrainPolicy | TrainPolicies


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
    with waiting_lock(folder):
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
