"""Draw transitions of one task from a trained generator."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from diffusion import edm, state_first
from diffusion.config import SamplerConfig
from diffusion.model import DiffusionModel
from diffusion.partial import PartialSamples
from diffusion.samplers import sample
from runtime import interrupt
from runtime.compiling import compiled
from runtime.device import autocast, autocast_dtype
from runtime.errors import DataError
from runtime.logs import progress


@torch.inference_mode()
def generate(
    model: DiffusionModel,
    condition: np.ndarray,
    config: SamplerConfig,
    *,
    seed: int,
    label: str = "samples",
    partial: PartialSamples | None = None,
) -> np.ndarray:
    """(num_samples, 164) float32 transition vectors of the task with `condition` (16,).

    With `partial` finished batches are kept on the way: a generation that was stopped continues after them, to the same
    samples, and one that is asked to stop does so after its batch.

    Raises `DataError` when the network gives values that are not finite.
    """
    normalizer = model.normalizer
    device = normalizer.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    task = torch.from_numpy(np.asarray(condition, np.float32)).to(device)[None]
    dim = normalizer.layout.transition_dim
    dtype = autocast_dtype(device, model.precision)

    model = dataclasses.replace(model, network=compiled(model.network, config.compile, device))
    samples = np.empty((config.num_samples, dim), dtype=np.float32)
    first = partial.restore(samples, generator) if partial else 0
    with progress(config.num_samples, label, done=first) as bar:
        for start in range(first, config.num_samples, config.batch_size):
            count = min(config.batch_size, config.num_samples - start)
            noise = torch.randn((count, dim), generator=generator, device=device)
            # One noise level and one task for the whole batch: its modulation is computed once, not per sample.
            with autocast(device, dtype):
                x = draw(model, noise, task, config, generator)
            samples[start : start + count] = normalizer.denormalize(x).cpu().numpy()
            bar.update(count)
            if partial and start + count < config.num_samples:
                stop = interrupt.requested()
                partial.keep(samples, start + count, generator, now=stop)
                if stop:
                    raise interrupt.Interrupted
    if not np.isfinite(samples).all():
        raise DataError("the generator gave values that are not finite; its training has diverged")
    return samples


def draw(
    model: DiffusionModel, noise: Tensor, task: Tensor, config: SamplerConfig, generator: torch.Generator
) -> Tensor:
    """Normalised transitions (B, D) from standard normal noise (B, D)."""
    network, parts = model.network, model.parts
    if parts is None:
        return sample(lambda x, s: edm.denoise(network, x, s, task, model.sigma_data), noise, config, generator)

    def state(x: Tensor, sigma: Tensor) -> Tensor:
        return state_first.denoise_state(network, x, sigma, task, parts)

    states = sample(state, noise[:, : parts.state_dim] * parts.positions, config, generator) * parts.positions
    if config.rest == "mean":
        return state_first.rest_given_state(network, states, task, parts, config.state_noise)
    given = torch.zeros_like(noise)
    given[:, : parts.state_dim] = states
    level = noise.new_full((1,), config.state_noise)

    def rest(x: Tensor, sigma: Tensor) -> Tensor:
        x = torch.where(parts.state, given, x)
        return state_first.denoise_rest(network, x, level, sigma, task, parts)

    return torch.where(parts.state, given, sample(rest, noise, config, generator))


def keep_in_range(matrix: np.ndarray, model: DiffusionModel, config: SamplerConfig) -> None:
    """Bring actions, rewards and terminals of generated rows (N, 164) to what there can be, as `config` asks."""
    layout = model.normalizer.layout
    if config.clip_actions:
        matrix[:, layout.action] = matrix[:, layout.action].clip(-1.0, 1.0)
    if config.clip_rewards:
        matrix[:, layout.reward] = matrix[:, layout.reward].clip(*model.reward_range)
    if config.clear_terminals and not model.saw_terminals:
        matrix[:, layout.terminal] = 0.0
