"""Train the generator on a pool of transitions, from scratch or from where a killed run stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion import edm, state_first
from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig, build
from diffusion.distributed import ALONE, World
from diffusion.ema import EMA
from diffusion.loader import BatchLoader
from diffusion.normalizer import Normalizer, scales
from diffusion.pool import Pool
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.transitions import TERMINAL_THRESHOLD
from runtime import interrupt
from runtime.atomic import commit_artifact, is_complete
from runtime.checkpoint import (
    entry,
    load_checkpoint,
    load_optimizer,
    load_weights,
    restore_random,
    save_torch,
    vector,
)
from runtime.compiling import compiled
from runtime.config import to_dict
from runtime.device import autocast, autocast_dtype
from runtime.errors import ConfigError, DataError
from runtime.logs import progress
from runtime.resumable import ResumableRun, discard
from runtime.seeds import derive_seed

_SCALES = ("delta_next", "follow_scale", "sigma_data", "standardise_terminal")
"""Settings that decide what the numbers mean which a network sees and gives."""


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
    weights[layout.next_state] = config.next_weight
    return weights / weights.mean()


def make_loss(
    order: str, config: TrainConfig, layout: FactoredLayout, device: torch.device, shard: tuple[int, int] = (0, 1)
) -> edm.Loss:
    """The loss of the whole transition, or with `order: state_first` of the state and of the rest given the state."""
    weights = dimension_weights(config, layout)
    weights = None if weights is None else weights.to(device)
    if order == "state_first":
        return state_first.StateFirstLoss(
            state_first.TransitionParts.of(layout, device),
            *(config.P_mean, config.P_std, config.condition_noise, config.unknown_share),
            dim_weights=weights,
            shard=shard,
        )
    sigma_data = config.sigma_data * scales(layout, config.follow_scale).to(device)
    return edm.EDMLoss(config.P_mean, config.P_std, sigma_data, weights, shard)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, the tensors named so, are not decayed; all else is."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        (free if name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def train(
    pool: Pool,
    denoiser: DenoiserConfig,
    config: TrainConfig,
    checkpoint: Path,
    *,
    seed: int,
    device: torch.device,
    initial: Path | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write the artifact `checkpoint`; `metrics.jsonl` and, while running, `resume.pt` are beside it.

    A killed run with the same `key` in `info` is continued. With `initial`, another checkpoint, its averaged weights
    and its normalisation are where training starts. The same seed gives the same network on the same machine, whether
    or not the run was interrupted. Under torchrun the processes share every batch and their gradients' mean is that of
    a process alone; the first one writes the files. Raises `DataError` where training diverges.
    """
    if is_complete(checkpoint):
        return
    world = World.of_environment(device)
    with world.joined():
        key = (info or {}).get("key")
        folder = checkpoint.parent
        run = Training(pool, denoiser, config, folder, key=key, seed=seed, world=world, initial=initial)
        run.restore()
        with progress(config.steps, "diffusion", done=run.step, shown=world.is_main_process) as bar, run:
            for y, condition in run.loader.batches(run.step, config.steps):
                run.update(y, condition)
                logged = run.step % config.log_freq == 0
                if logged:
                    mean_loss = float(world.mean(run.total_loss)) / config.log_freq
                    run.total_loss.zero_()
                    if not math.isfinite(mean_loss):
                        raise DataError(
                            f"{folder}: the loss is not finite at step {run.step}; learn with a smaller learning_rate"
                        )
                    run.write_metrics(step=run.step, loss=mean_loss, learning_rate=learning_rate(run.step - 1, config))
                    bar.update(config.log_freq, loss=mean_loss)
                # Several processes have losses of their own until they are joined to be logged, and stop together.
                if logged or world.size == 1:
                    run.between_steps(stop=world.any(interrupt.requested()))
        if world.is_main_process:
            state = run.contents()
            written = {"steps": config.steps, **(info or {})}
            commit_artifact(checkpoint, lambda temporary: save_torch(state, temporary), written)
            discard(run.folder)


class Training(ResumableRun):
    """A network in training: weights, their average, optimiser, normalisation, batches and random numbers."""

    FORMAT = "generator 2"
    step = 0

    def __init__(
        self,
        pool: Pool,
        denoiser: DenoiserConfig,
        config: TrainConfig,
        folder: Path,
        *,
        key: str | None,
        seed: int,
        world: World = ALONE,
        initial: Path | None = None,
    ) -> None:
        super().__init__(
            folder, key=key, checkpoint_seconds=config.checkpoint_seconds, writes=world.is_main_process, background=True
        )
        self.denoiser, self.config, self.seed, self.world = denoiser, config, seed, world
        layout, device = pool.layout, world.device
        self.total_loss = torch.zeros((), device=device)  # since it was logged
        rewards = pool.matrix[:, layout.reward]
        self.reward_range = [float(rewards.min()), float(rewards.max())]
        self.saw_terminals = bool((pool.matrix[:, layout.terminal] > TERMINAL_THRESHOLD).any())
        before = load_initial(initial, denoiser, config, layout) if initial else None
        self.normalizer = _normalizer(pool, config, before)
        batch_size = config.batch_size_for(len(pool.matrix))
        if batch_size % world.size:
            raise ConfigError(f"batch_size {batch_size}: expected a multiple of the {world.size} processes")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("diffusion", seed))
            self.network = build(layout, denoiser).to(device)
        if before and initial:
            load_weights(self.network, before["ema"], initial, "ema")
        self.ema = EMA(self.network, decay=config.ema_decay, every=config.ema_every)
        groups = parameter_groups(self.network, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, config.learning_rate, config.betas, fused=True)
        self.generator = torch.Generator(device).manual_seed(derive_seed("noise", seed))
        self.loader = BatchLoader(pool, self.normalizer, batch_size, world, seed=seed)
        self.trained = world.wrap(compiled(self.network, config.compile, device))
        self.dtype = autocast_dtype(device, config.precision)
        self.loss = make_loss(denoiser.order, config, layout, device, (world.rank, world.size))

    def update(self, y: Tensor, condition: Tensor) -> None:
        """The next gradient step, on this process' rows of a batch; adds the loss, without synchronising."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.total_loss += train_step(
            self.trained,
            self.optimizer,
            self.loss,
            y,
            condition,
            self.generator,
            grad_clip=self.config.grad_clip,
            dtype=self.dtype,
        )
        self.step += 1
        self.ema.update(self.step)

    def state_dict(self) -> dict[str, Any]:
        """What the finished checkpoint holds as well."""
        return {
            "step": self.step,
            "model": self.network.state_dict(),
            "ema": self.ema.model.state_dict(),
            "opt": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "resident": self.loader.resident,
            "total_loss": float(self.total_loss),
            "normalizer.mean": self.normalizer.mean,
            "normalizer.std": self.normalizer.std,
            "reward_range": self.reward_range,
            "saw_terminals": self.saw_terminals,
            "denoiser": to_dict(self.denoiser),
            "train": to_dict(self.config),
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        load_optimizer(self.optimizer, state["opt"])
        restore_random(self.generator, state["generator"], state["step"])
        self.step = state["step"]
        self.total_loss.fill_(state["total_loss"])


def load_initial(path: Path, denoiser: DenoiserConfig, config: TrainConfig, layout: FactoredLayout) -> dict[str, Any]:
    """The checkpoint that a warm start continues.

    Raises `DataError` where it is no generator's, `ConfigError` where its network or its scales are others.
    """
    before = load_checkpoint(path)
    missing = [key for key in ("ema", "normalizer.mean", "normalizer.std", "denoiser", "train") if key not in before]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}, expected the checkpoint of a generator")
    for name in ("normalizer.mean", "normalizer.std"):
        vector(before, name, layout.transition_dim, path)
    for name in ("ema", "denoiser", "train"):
        entry(before, name, Mapping, path)
    asked = to_dict(denoiser) | {name: getattr(config, name) for name in _SCALES}
    found = before["denoiser"] | {name: before["train"].get(name) for name in _SCALES}
    differing = [f"{key} {found.get(key)} (expected {asked[key]})" for key in asked if found.get(key) != asked[key]]
    if differing:
        raise ConfigError(
            f"{path}: its generator has {', '.join(differing)}; a warm start goes on with the same network and scales"
        )
    return before


def _normalizer(pool: Pool, config: TrainConfig, before: Mapping[str, Any] | None) -> Normalizer:
    """That of the checkpoint that is continued, else the pool's own."""
    if before:
        mean, std = before["normalizer.mean"], before["normalizer.std"]
        return Normalizer(mean, std, pool.layout, config.delta_next)
    return Normalizer.fit(
        torch.from_numpy(pool.matrix),
        pool.layout,
        delta_next=config.delta_next,
        std_offset=config.std_offset,
        follow_scale=config.follow_scale,
        standardise_terminal=config.standardise_terminal,
    )


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: edm.Loss,
    y: Tensor,
    condition: Tensor,
    generator: torch.Generator,
    *,
    grad_clip: float,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One gradient step on normalised transitions y (B, 164), with products in `dtype` (None: float32).

    Returns the loss without synchronising.
    """
    with autocast(y.device, dtype):
        value = loss(network, y, condition, generator)
    optimizer.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), grad_clip)
    optimizer.step()
    return value.detach()
