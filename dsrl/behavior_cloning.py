"""Training of the diffusion policy: all data on the device, batches by index; resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.ema import EMA
from dsrl.chunks import chunk_rows
from dsrl.config import DiffusionBCConfig
from dsrl.demos import DemonstrationSet
from dsrl.denoising import NoisePredictor, cosine_alpha_bar, loss
from dsrl.diffusion_policy import Checkpoint
from dsrl.normalizer import BOUND, MinMax, feature_columns, features
from dsrl.tasks import Task
from runtime.checkpoint import load_optimizer, replace_torch, restore_random
from runtime.config import config_hash, to_dict
from runtime.device import autocast, autocast_dtype
from runtime.errors import DataError, StateError
from runtime.logs import progress
from runtime.resumable import ResumableRun, discard
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)

# Where a run may be continued with other values than it began with.
_FREE = ("save_dir", "data_path", "device", "save_every", "ddim_steps", "spacing", "checkpoint_seconds")


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / f"state_{epoch}.pt"


def checkpoint_files(folder: Path) -> list[Path]:
    """Its `state_{epoch}.pt`, the highest epoch first."""
    found = [(int(path.stem[6:]), path) for path in folder.glob("state_*.pt") if path.stem[6:].isdigit()]
    return [path for _, path in sorted(found, reverse=True)]


class Samples:
    """Normalised observations (M, D') and chunks (M, pred_horizon * A) on the device, with their normalisers."""

    def __init__(self, data: DemonstrationSet, task: Task, config: DiffusionBCConfig, device: torch.device) -> None:
        rows, chunks = chunk_rows(data.lengths, config.pred_horizon, pad=config.pad)
        columns = feature_columns(task, data.keys, config.relative_quaternion)
        seen = features(torch.from_numpy(data.observations), columns, config.relative_quaternion)
        actions = torch.from_numpy(data.actions)
        self.obs_normalizer, self.action_normalizer = MinMax.fit(seen), MinMax.fit(actions)
        normalized = self.action_normalizer.normalize(actions)
        self.observations = self.obs_normalizer.normalize(seen)[torch.from_numpy(rows)].clamp(-BOUND, BOUND).to(device)
        self.chunks = normalized[torch.from_numpy(chunks)].reshape(len(rows), -1).to(device)

    def __len__(self) -> int:
        return len(self.chunks)


def learning_rate(step: int, steps_per_epoch: int, config: DiffusionBCConfig) -> float:
    """Linear warm-up over the first epochs times a cosine from `learning_rate` to `final_learning_rate`."""
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total / 10)
    scale = min(1.0, (step + 1) / (warmup + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))
    return scale * (config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine)


class Trainer:
    """The network being trained, its average and its optimiser; `step` is one gradient step on rows of the samples."""

    def __init__(self, samples: Samples, config: DiffusionBCConfig, device: torch.device) -> None:
        self.samples, self.config, self.device = samples, config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("bc-weights", config.seed))
            action_dim, observation_dim = samples.chunks.shape[1], samples.observations.shape[1]
            self.network = NoisePredictor(action_dim, observation_dim, config.hidden_dims, config.time_dim).to(device)
        self.ema = EMA(self.network, decay=config.ema_decay, every=config.ema_every)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.generator = torch.Generator(device).manual_seed(derive_seed("bc-noise", config.seed))
        self.alpha_bar = cosine_alpha_bar(config.diffusion_steps).float().to(device)
        self.dtype = autocast_dtype(device, config.precision)
        self.steps_per_epoch = math.ceil(len(samples) / config.batch_size)
        self.total_steps = 0

    def step(self, rows: Tensor) -> Tensor:
        """Returns the loss without waiting for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.total_steps, self.steps_per_epoch, self.config)
        with autocast(self.device, self.dtype):
            error = loss(
                self.network,
                self.samples.chunks[rows],
                self.samples.observations[rows],
                self.alpha_bar,
                self.generator,
            )
        self.optimizer.zero_grad()
        error.backward()
        self.optimizer.step()
        self.total_steps += 1
        self.ema.update(self.total_steps)
        return error.detach()

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.model.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.total_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])
        restore_random(self.generator, state["generator"], state["step"])
        self.total_steps = state["step"]


class CloningRun(ResumableRun):
    """A training in its folder, opened where it was left: between two epochs or within one.

    Every `state_{epoch}.pt` can be continued from as well as `resume.pt`.
    """

    FORMAT = "cloning 2"
    step = 0  # epochs done

    def __init__(self, data: DemonstrationSet, task: Task, config: DiffusionBCConfig, device: torch.device) -> None:
        settings = {name: value for name, value in to_dict(config).items() if name not in _FREE}
        key = config_hash([settings, len(data)])
        super().__init__(config.save_folder, key=key, checkpoint_seconds=config.checkpoint_seconds)
        self.data, self.task, self.config = data, task, config
        self.trainer = Trainer(Samples(data, task, config, device), config, device)
        self.left: Tensor | None = None  # rows of the epoch that it is in
        self.total_loss = torch.zeros((), device=device)  # of that epoch
        self.restore()

    def resume_files(self) -> list[Path]:
        return [self.resume_file, *checkpoint_files(self.folder)]

    def epoch(self) -> Tensor:
        """One pass over all samples in random order, or what is left of it; the mean loss."""
        trainer, batch_size = self.trainer, self.config.batch_size
        count = len(trainer.samples)
        if self.left is None:
            self.left = torch.randperm(count, generator=trainer.generator, device=trainer.device)
            self.total_loss.zero_()
        while len(self.left) > batch_size:
            self.total_loss += trainer.step(self.left[:batch_size])
            self.left = self.left[batch_size:]
            self.between_steps()
        self.total_loss += trainer.step(self.left)
        self.step, self.left = self.step + 1, None
        return self.total_loss / trainer.steps_per_epoch

    def keep(self) -> None:
        """Write `state_{epoch}.pt`, which it can be continued from as well."""
        replace_torch(self.contents(), checkpoint_file(self.folder, self.step))
        discard(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """What a finished policy needs stands in it too (`Checkpoint`)."""
        samples = self.trainer.samples
        return {
            **self.trainer.state_dict(),
            "obs_normalizer": samples.obs_normalizer.state_dict(),
            "action_normalizer": samples.action_normalizer.state_dict(),
            "obs_keys": list(self.data.keys),
            "args": to_dict(self.config),
            "env_args": self.task.env_args,
            "data": {"demos": len(self.data.lengths), "samples": len(self.data), **_plain(self.data.attributes)},
            "epoch": self.step,
            "left": self.left,
            "total_loss": float(self.total_loss),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trainer.load_state_dict(state)
        self.step = state["epoch"]
        self.left = None if state["left"] is None else state["left"].to(self.trainer.device)
        self.total_loss.fill_(state["total_loss"])


def train(data: DemonstrationSet, task: Task, config: DiffusionBCConfig, *, device: torch.device) -> Path:
    """Write `state_{epoch}.pt` every `save_every` epochs and at the end; returns the last one.

    A run that was stopped or killed continues, and ends with the same weights as one that was not. Raises `StateError`
    where the folder's checkpoints were made with other settings, `DataError` where training diverges.
    """
    if data.actions.shape[1] != task.action_dim:
        raise DataError(f"actions have {data.actions.shape[1]} numbers, expected {task.action_dim} for {task}")
    newest = _newest_of_same(config, len(data))
    if newest and newest.contents["epoch"] >= config.epochs:
        log.info("%s: finished before", newest.path)
        return newest.path
    run = CloningRun(data, task, config, device)
    started = time.monotonic()
    with progress(config.epochs, f"cloning {task}", done=run.step) as bar, run:
        while run.step < config.epochs:
            mean_loss = run.epoch()
            ended = run.step == config.epochs
            if run.step % 10 == 0 or ended:
                value = float(mean_loss)
                if not math.isfinite(value):
                    raise DataError(
                        f"epoch {run.step}: the loss is {value}; lower learning_rate ({config.learning_rate})"
                    )
                seconds, steps = time.monotonic() - started, run.trainer.total_steps
                run.write_metrics(step=run.step, loss=value, optimizer_steps=steps, seconds=round(seconds, 1))
                bar.update(0, loss=value)
            bar.update(1)
            if run.step % config.save_every == 0 or ended:
                run.keep()
            if not ended:
                run.between_steps()
    return checkpoint_file(config.save_folder, config.epochs)


def _newest_of_same(config: DiffusionBCConfig, samples: int) -> Checkpoint | None:
    """The newest checkpoint of the folder that is not damaged, if there is one.

    Raises `StateError` where it was made with other settings.
    """
    for path in checkpoint_files(config.save_folder):
        try:
            checkpoint = Checkpoint.read(path)
        except DataError:
            continue
        before, now = dict(checkpoint.args), to_dict(config)
        for name in _FREE:
            before.pop(name, None), now.pop(name, None)
        differing = sorted(name for name in now if before.get(name) != now[name])
        if checkpoint.contents["data"]["samples"] != samples:
            differing.append("the number of samples")
        if differing:
            raise StateError(
                f"{path}: made with other settings ({', '.join(differing)}); "
                "give another --save_dir or move the folder away"
            )
        return checkpoint
    return None


def _plain(attributes: Any) -> dict[str, Any]:
    """HDF5 attributes as what a checkpoint can hold."""
    return {key: value.item() if hasattr(value, "item") else str(value) for key, value in attributes.items()}
