"""Stages 1 and 2: train the generator, draw a task's set from it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffusion.config import RUNTIME_SETTINGS, SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from envs.family import family_of
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.samples import SAMPLES_FILE, read_samples, write_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.jobs.stage import Stage, StageProgress, key_of
from pipeline.jobs.stage_group import StageGroup, in_groups
from pipeline.stages.paths import QUALITY_FILE, marginals_file
from runtime.atomic import is_complete, write_json
from runtime.config import config_hash, dict_without, to_dict
from runtime.device import pick_device
from runtime.errors import DataError, one_line
from runtime.metrics import read_metrics
from runtime.provenance import provenance
from runtime.records import read_optional
from runtime.seeds import derive_seed, rng

if TYPE_CHECKING:
    from diffusion.model import DiffusionModel
    from diffusion.pool import Allocate, Pool
    from diffusion.quality import Marginals, Quality

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainGenerator(Stage):
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
    devices: int = 1  # GPUs of one machine that train together
    number: int = 0  # of several generators

    @property
    def name(self) -> str:
        folder = self.checkpoint.parent
        return f"train {folder.parent.name}, generator {self.number}" if self.number else f"train {folder.name}"

    @property
    def output(self) -> Path:
        return self.checkpoint

    def key(self) -> str:
        expert = [(task.name, key_of(self._expert_file(task))) for task in self.expert_tasks]
        sources = [(task.name, key_of(path)) for task, path in self.sources]
        initial = key_of(self.initial) if self.initial else None
        settings = [to_dict(self.network), dict_without(self.training, RUNTIME_SETTINGS), self.seed, initial]
        return config_hash([expert, sources, *settings])

    def progress(self) -> StageProgress:
        rows = read_metrics(self.checkpoint.parent / "metrics.jsonl", "loss")
        if not rows:
            return StageProgress("beginning")
        step, steps = rows[-1]["step"], self.training.steps
        return StageProgress(f"step {step:,}/{steps:,}, loss {rows[-1]['loss']:.4f}", step / steps)

    def __call__(self) -> None:
        """With several GPUs one process each trains; under torchrun this is one of them already."""
        from diffusion.distributed import World, spawn

        devices = min(self.devices, torch.cuda.device_count())
        if devices > 1 and World.of_environment().size == 1 and pick_device(self.device).type == "cuda":
            spawn(dataclasses.replace(self, devices=1), devices)
        else:
            super().__call__()

    def held(self) -> contextlib.AbstractContextManager[str | None]:
        """The first process holds the lock for all."""
        from diffusion.distributed import World

        if World.of_environment().is_main_process:
            return super().held()
        return contextlib.nullcontext(None if self.is_done() else self.key())

    def work(self, key: str) -> None:
        from diffusion.distributed import World
        from diffusion.quality import Marginals, save_marginals
        from diffusion.shared_pool import shared_pool
        from diffusion.train import train

        device, layout = pick_device(self.device), self.expert_tasks[0].layout
        world = World.of_environment(device)
        with world.joined():
            pool = shared_pool(self._pool, layout, world)
            if world.is_main_process:
                marginals = Marginals.of(pool.matrix, pool.task_index, pool.conditions)
                save_marginals(marginals_file(self.checkpoint), marginals)
            started = time.monotonic()
            train(
                pool,
                self.network,
                self.training,
                self.checkpoint,
                seed=self.seed,
                device=device,
                initial=self.initial,
                info={"key": key, "rows": len(pool.matrix), "tasks": len(pool.conditions), **provenance()},
            )
        log.info("%s: %d rows, %.0f s", self.name, len(pool.matrix), time.monotonic() - started)

    def _pool(self, allocate: Allocate) -> Pool:
        from diffusion.pool import Pool

        parts = [self._expert(task) for task in self.expert_tasks]
        parts += [read_samples(path, task, task.layout) for task, path in self.sources]
        return Pool.of(
            _given_up(parts),
            self.expert_tasks[0].layout,
            rows=sum(len(part) for part in parts),
            allocate=allocate,
            canonical_quaternions=self.training.canonical_quaternions,
            timeouts_as_terminals=self.training.timeouts_as_terminals,
        )

    def _expert(self, task: Task) -> Transitions:
        return family_of(task).read_data(self._expert_file(task), task, episode_ends=self.training.episode_ends)

    def _expert_file(self, task: Task) -> Path:
        return family_of(task).data_file(self.data_path, self.dataset_type, task)


def _given_up(parts: list[Transitions]) -> Iterator[Transitions]:
    """The parts one after another, out of a list that is empty in the end."""
    while parts:
        yield parts.pop(0)


@dataclass(frozen=True)
class Generate(Stage):
    """Stage 2: draw the sample file of one task from a generator. Needs nothing of the task but its name."""

    task: Task
    checkpoint: Path
    sampling: SamplerConfig
    seed: int
    device: str = "auto"
    ground: bool = False  # by the simulator
    others: tuple[Path, ...] = ()  # checkpoints of further generators

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

        return read_optional(Quality, self.quality_file)

    def key(self) -> str:
        more = [*(["grounded"] if self.ground else []), *map(key_of, self.others)]
        return config_hash([key_of(self.checkpoint), self.task.name, to_dict(self.sampling), self.seed, *more])

    def progress(self) -> StageProgress:
        return StageProgress(f"{self.sampling.num_samples:,} samples")

    @property
    def members(self) -> tuple[Generate, ...]:
        """The sets that this job draws."""
        return (self,)

    def work(self, key: str) -> None:
        self.draw(self.models(), key)

    def models(self) -> list[DiffusionModel]:
        """The generators, loaded."""
        from diffusion.model import DiffusionModel

        device, checkpoints = pick_device(self.device), (self.checkpoint, *self.others)
        return [DiffusionModel.load(checkpoint, self.task.layout, device) for checkpoint in checkpoints]

    def draw(self, models: Sequence[DiffusionModel], key: str) -> None:
        """Make the set with these generators, and commit it."""
        from diffusion.ensemble import generate_by_all
        from diffusion.generate import keep_in_range
        from diffusion.partial import PartialSamples
        from diffusion.quality import assess

        layout = self.task.layout
        # Every task of every iteration has noise of its own: equal noise would tie the sets together.
        seed = derive_seed("generate", self.seed, self.task.name, self.checkpoint.parent.name)
        seed = self.seed if self.sampling.shared_noise else seed
        folders = [self.output.with_name(f"partial{k or ''}") for k in range(len(models))]
        partials = [PartialSamples(folder, key) for folder in folders]
        matrix = generate_by_all(
            models, self.task.one_hot, self.sampling, seed=seed, label=self.name, partials=partials
        )
        marginals = known_marginals(self.checkpoint, layout)
        quality = assess(matrix, self.task.one_hot, layout, marginals, rng("quality", self.seed))
        write_json(self.quality_file, asdict(quality))
        log.info("%s: %s", self.name, quality)
        keep_in_range(matrix, models[0], self.sampling)
        info: dict[str, Any] = {"key": key, "task": self.task.name, "model": str(self.checkpoint), **provenance()}
        transitions = Transitions.from_matrix(matrix, self.task, layout)
        if self.ground:
            from pipeline.stages.grounding import ground

            transitions = ground(transitions, self.task)
            info["grounded"] = {"rows": len(transitions), "of": len(matrix)}
            log.info("%s: %d of %d rows grounded by the simulator", self.name, len(transitions), len(matrix))
        write_samples(self.output, transitions, layout, info)
        for partial in partials:
            partial.discard()


@dataclass(frozen=True)
class GenerateSets(StageGroup[Generate]):
    """Stage 2 for several tasks of the same generators: one process loads these once, and draws set after set."""

    members: tuple[Generate, ...]

    @property
    def name(self) -> str:
        return f"generate {self.members[0].task.name} and {len(self.members) - 1} more"

    @property
    def output(self) -> Path:
        return self.record_in(self.members[0].checkpoint.parent, [member.task.name for member in self.members])

    def progress(self) -> StageProgress:
        done = sum(is_complete(member.output) for member in self.members)
        return StageProgress(f"{done:,} of {len(self.members):,} sets", done / len(self.members))

    def work(self, key: str) -> None:
        models: list[DiffusionModel] = []
        lost = []
        for member in self.members:
            with member.held() as own:
                if own is None:
                    continue
                models = models or member.models()
                try:
                    member.draw(models, own)
                except DataError as error:
                    log.warning("%s: %s", member.name, one_line(error))
                    lost.append(error)
        if lost:
            raise DataError(f"{len(lost)} of {len(self.members)} sets were not drawn: {lost[0]}") from lost[0]
        self.commit({"members": [member.task.name for member in self.members]}, key)


def sets_in_groups(stages: Sequence[Generate], size: int) -> list[Generate | GenerateSets]:
    """The jobs that draw these sets, at most `size` of them each."""
    return in_groups(stages, size, GenerateSets)


def known_marginals(checkpoint: Path, layout: FactoredLayout) -> Marginals | None:
    """The distribution of the data that trained a generator; None, with a warning, where that cannot be read."""
    from diffusion.quality import load_marginals

    try:
        return load_marginals(marginals_file(checkpoint), layout)
    except DataError as error:
        log.warning("%s: quality is judged without it", one_line(error))
        return None
