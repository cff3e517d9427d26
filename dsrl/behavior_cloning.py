"""Training of the diffusion policy: all data on the device, batches by index; resumable."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.ema import EMA
from dsrl.chunks import chunk_rows
from dsrl.config import BCConfig
from dsrl.demos import DemonstrationSet
from dsrl.denoising import NoisePredictor, cosine_alpha_bar, loss
from dsrl.diffusion_policy import Checkpoint
from dsrl.normalizer import BOUND, MinMax, feature_columns, features
from envs.robomimic_task import ACTION_DIM, RobomimicTask
from runtime.checkpoint import replace_torch, restore_random
from runtime.config import to_dict
from runtime.device import autocast_dtype
from runtime.errors import DataError, StateError
from runtime.logs import progress
from runtime.metrics import MetricsWriter
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)

# Where a run may be continued with other values than it began with.
_FREE = ("save_dir", "data_path", "device", "save_every", "ddim_steps", "spacing")


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / f"state_{epoch}.pt"


def latest_checkpoint(folder: Path) -> Path | None:
    """The `state_{epoch}.pt` of the highest epoch."""
    found = [(int(path.stem[6:]), path) for path in folder.glob("state_*.pt") if path.stem[6:].isdigit()]
    return max(found)[1] if found else None


class Samples:
    """Normalised observations (M, D') and chunks (M, pred_horizon * 7) on the device, with their normalisers."""

    def __init__(self, data: DemonstrationSet, task: RobomimicTask, config: BCConfig, device: torch.device) -> None:
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


def learning_rate(step: int, steps_per_epoch: int, config: BCConfig) -> float:
    """Linear warm-up over the first epochs times a cosine from `learning_rate` to `final_learning_rate`."""
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total / 10)
    scale = min(1.0, (step + 1) / (warmup + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / total, 1.0)))
    return scale * (config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine)


class Trainer:
    """The network being trained, its average and its optimiser; `step` is one gradient step on rows of the samples."""

    def __init__(self, samples: Samples, config: BCConfig, device: torch.device) -> None:
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
        self.autocast = autocast_dtype(device, config.precision)
        self.steps_per_epoch = math.ceil(len(samples) / config.batch_size)
        self.total_steps = 0

    def step(self, rows: Tensor) -> Tensor:
        """Returns the loss without waiting for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.total_steps, self.steps_per_epoch, self.config)
        with torch.autocast(self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
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

    def epoch(self) -> Tensor:
        """One pass over all samples in random order; mean loss."""
        order = torch.randperm(len(self.samples), generator=self.generator, device=self.device)
        return torch.stack([self.step(rows) for rows in order.split(self.config.batch_size)]).mean()

    def contents(self, epoch: int, data: DemonstrationSet, env_args: str) -> dict[str, Any]:
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.model.state_dict(),
            "obs_normalizer": self.samples.obs_normalizer.state_dict(),
            "action_normalizer": self.samples.action_normalizer.state_dict(),
            "obs_keys": list(data.keys),
            "args": to_dict(self.config),
            "env_args": env_args,
            "data": {"demos": len(data.lengths), "samples": len(data), **_plain(data.attributes)},
            "generator": self.generator.get_state(),
            "step": self.total_steps,
            "epoch": epoch,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        contents = checkpoint.contents
        if "optimizer" not in contents or "generator" not in contents:
            raise DataError(f"{checkpoint.path}: cannot be continued, it has no optimiser state")
        self.network.load_state_dict(contents["model"])
        self.ema.model.load_state_dict(contents["ema"])
        self.optimizer.load_state_dict(contents["optimizer"])
        restore_random(self.generator, contents["generator"], contents["step"])
        self.total_steps = contents["step"]


def train(data: DemonstrationSet, task: RobomimicTask, config: BCConfig, *, device: torch.device) -> Path:
    """Write `state_{epoch}.pt` every `save_every` epochs and at the end; returns the last one.

    A run that was killed continues from its newest checkpoint, and ends with the same weights as one that was not.
    Raises `StateError` where the folder's checkpoints were made with other settings.
    """
    if data.actions.shape[1] != ACTION_DIM:
        raise DataError(f"actions have {data.actions.shape[1]} numbers, expected {ACTION_DIM}")
    folder = config.save_folder
    trainer = Trainer(Samples(data, task, config, device), config, device)
    first = 0
    newest = latest_checkpoint(folder)
    if newest:
        checkpoint = Checkpoint.read(newest)
        _expect_same(checkpoint, config, len(data))
        trainer.restore(checkpoint)
        first = checkpoint.contents["epoch"]
        if first >= config.epochs:
            log.info("%s: finished before", newest)
            return newest
    metrics = MetricsWriter(folder, resume_from=first)
    started = time.monotonic()
    with progress(config.epochs, f"cloning {task}", done=first) as bar:
        for epoch in range(first + 1, config.epochs + 1):
            mean_loss = trainer.epoch()
            last = epoch == config.epochs
            if epoch % 10 == 0 or last:
                value = float(mean_loss)
                if not math.isfinite(value):
                    raise DataError(f"epoch {epoch}: the loss is {value}; lower learning_rate ({config.learning_rate})")
                seconds = time.monotonic() - started
                metrics.log(step=epoch, loss=value, optimizer_steps=trainer.total_steps, seconds=round(seconds, 1))
                bar.update(0, loss=value)
            bar.update(1)
            if epoch % config.save_every == 0 or last:
                newest = checkpoint_file(folder, epoch)
                replace_torch(trainer.contents(epoch, data, task.env_args), newest)
    return newest


def _expect_same(checkpoint: Checkpoint, config: BCConfig, samples: int) -> None:
    """A longer training may continue a shorter one only if nothing that the learning rate depends on differs."""
    before, now = dict(checkpoint.args), to_dict(config)
    for name in _FREE:
        before.pop(name, None), now.pop(name, None)
    differing = sorted(name for name in now if before.get(name) != now[name])
    if checkpoint.contents["data"]["samples"] != samples:
        differing.append("the number of samples")
    if differing:
        raise StateError(
            f"{checkpoint.path}: made with other settings ({', '.join(differing)}); "
            "give another --save_dir or move the folder away"
        )


def _plain(attributes: Any) -> dict[str, Any]:
    """HDF5 attributes as what a checkpoint can hold."""
    return {key: value.item() if hasattr(value, "item") else str(value) for key, value in attributes.items()}
