"""Train the generator on a pool of transitions, from scratch or from where a killed run stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion import edm
from diffusion.config import DenoiserConfig, TrainConfig
from diffusion.dit import SemanticDiT
from diffusion.ema import EMA
from diffusion.model import load_checkpoint
from diffusion.normalizer import Normalizer, scales
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.transitions import Transitions, canonical_quaternions
from runtime import interrupt
from runtime.atomic import atomic_path, commit_artifact, is_complete
from runtime.checkpoint import save_torch
from runtime.config import to_dict
from runtime.device import autocast_dtype
from runtime.errors import DataError
from runtime.logs import progress
from runtime.metrics import MetricsWriter
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Transitions of several tasks: matrix (N, 164) float32, task of each row (N,) int64, conditions (T, 16)."""

    matrix: np.ndarray
    task_index: np.ndarray
    conditions: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Transitions], layout: FactoredLayout) -> Pool:
        """One matrix, allocated once and filled part by part. Raises `DataError` for an empty pool."""
        rows = sum(len(part) for part in parts)
        if not rows:
            raise DataError("the training pool is empty: expected at least one task with data")
        matrix = np.empty((rows, layout.transition_dim), dtype=np.float32)
        task_index = np.empty(rows, dtype=np.int64)
        start = 0
        for i, part in enumerate(parts):
            stop = start + len(part)
            matrix[start:stop] = part.to_matrix(layout)
            task_index[start:stop] = i
            start = stop
        for states in (layout.observation, layout.next_observation):
            matrix[:, states] = canonical_quaternions(matrix[:, states], layout)
        return cls(matrix, task_index, np.stack([part.task.one_hot for part in parts]))


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to 0 over all steps (step counts from 0)."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def dimension_weights(config: TrainConfig, layout: FactoredLayout) -> Tensor | None:
    """(164,) weights with mean 1; None where all are equal."""
    if config.action_weight == config.next_weight == 1.0:
        return None
    weights = torch.ones(layout.transition_dim)
    weights[layout.action] = config.action_weight
    weights[layout.next_observation] = config.next_weight
    return weights / weights.mean()


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, the tensors named so, are not decayed; all else is."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (free if name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def train(
    pool: Pool,
    denoiser: DenoiserConfig,
    config: TrainConfig,
    layout: FactoredLayout,
    checkpoint: Path,
    *,
    seed: int,
    device: torch.device,
    initial: Path | None = None,
    info: Mapping[str, Any] | None = None,
    label: str = "diffusion",
) -> None:
    """Write the artifact `checkpoint`; `metrics.jsonl` and, while running, `resume.pt` are beside it.

    A killed run with the same `key` in `info` is continued. With `initial`, another checkpoint, its averaged weights
    and its normalisation are where training starts. The same seed gives the same network on the same machine, whether
    or not the run was interrupted.
    """
    if is_complete(checkpoint):
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    resume_file = checkpoint.parent / "resume.pt"
    before = load_checkpoint(initial) if initial else None
    if before:
        mean, std = before["normalizer.mean"], before["normalizer.std"]
        normalizer = Normalizer(mean, std, layout, before["train"]["delta_next"])
    else:
        normalizer = Normalizer.fit(
            torch.from_numpy(pool.matrix),
            layout,
            delta_next=config.delta_next,
            std_offset=config.std_offset,
            follow_scale=config.follow_scale,
        )
    data = normalizer.normalize(torch.from_numpy(pool.matrix)).to(device)
    task_index = torch.from_numpy(pool.task_index).to(device)
    conditions = torch.from_numpy(pool.conditions).to(device)
    batch_size = config.batch_size if len(data) >= config.small_pool else config.small_batch_size

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("diffusion", seed))
        network = SemanticDiT(layout, denoiser).to(device)
    if before:
        network.load_state_dict(before["ema"])
    ema = EMA(network, decay=config.ema_decay, every=config.ema_every)
    optimizer = torch.optim.AdamW(
        parameter_groups(network, config.weight_decay), config.learning_rate, config.betas, fused=True
    )
    generator = torch.Generator(device).manual_seed(derive_seed("noise", seed))
    first = 0
    key = (info or {}).get("key")
    resumed = load_checkpoint(resume_file) if resume_file.exists() else None
    if resumed and resumed.get("key") != key:
        log.warning("%s: made from other inputs or settings; training starts anew", resume_file)
    elif resumed:
        network.load_state_dict(resumed["model"])
        ema.model.load_state_dict(resumed["ema"])
        optimizer.load_state_dict(resumed["opt"])
        generator.set_state(resumed["generator"])
        first = resumed["step"]

    def state(step: int) -> dict[str, Any]:
        return {
            "step": step,
            "model": network.state_dict(),
            "ema": ema.model.state_dict(),
            "opt": optimizer.state_dict(),
            "generator": generator.get_state(),
            "normalizer.mean": normalizer.mean,
            "normalizer.std": normalizer.std,
            "denoiser": to_dict(denoiser),
            "train": to_dict(config),
            "seed": seed,
            "key": key,
        }

    autocast = autocast_dtype(device, config.precision)
    weights = dimension_weights(config, layout)
    weights = None if weights is None else weights.to(device)
    sigma_data = config.sigma_data * scales(layout, config.follow_scale).to(device)
    metrics = MetricsWriter(checkpoint.parent, resume_from=first)
    total_loss = torch.zeros((), device=device)
    saved = time.monotonic()
    with progress(config.steps, label, done=first) as bar:
        for step in range(first, config.steps):
            rows = torch.randint(len(data), (batch_size,), generator=generator, device=device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            total_loss += train_step(
                network,
                optimizer,
                data[rows],
                conditions[task_index[rows]],
                generator,
                config,
                autocast,
                sigma_data,
                weights,
            )
            done = step + 1
            ema.update(done)
            if done % config.log_every == 0:
                mean_loss = float(total_loss) / config.log_every
                total_loss.zero_()
                metrics.log(step=done, loss=mean_loss, learning_rate=learning_rate(step, config))
                bar.update(config.log_every, loss=mean_loss)
            # On a multiple of log_every, so that the running mean of the loss needs no place in the checkpoint.
            stop = interrupt.requested()
            if done % config.log_every == 0 and (stop or time.monotonic() - saved > config.checkpoint_seconds):
                with atomic_path(resume_file) as temporary:
                    save_torch(state(done), temporary)
                saved = time.monotonic()
                if stop:
                    raise interrupt.Interrupted

    commit_artifact(
        checkpoint,
        lambda temporary: save_torch(state(config.steps), temporary),
        {"steps": config.steps, **(info or {})},
    )
    resume_file.unlink(missing_ok=True)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    y: Tensor,
    condition: Tensor,
    generator: torch.Generator,
    config: TrainConfig,
    autocast: torch.dtype | None,
    sigma_data: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """One gradient step on normalised transitions y (B, 164); returns the loss without synchronising."""
    with torch.autocast(y.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = edm.loss(
            network,
            y,
            condition,
            generator,
            dim_weights=weights,
            P_mean=config.P_mean,
            P_std=config.P_std,
            sigma_data=sigma_data,
        )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
    optimizer.step()
    return loss.detach()
