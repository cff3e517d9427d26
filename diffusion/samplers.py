"""Solvers of the probability-flow ODE and its stochastic variant, from noise to samples.

All take a denoiser D(x (B, d), sigma (1,)) -> (B, d) and noise levels that end in 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.config import SamplerConfig

Denoiser = Callable[[Tensor, Tensor], Tensor]


def noise_levels(config: SamplerConfig) -> list[float]:
    """sigma_0 .. sigma_{N-1} of Karras et al. 2022, Eq. 5, then 0."""
    n, inverse = config.steps, 1 / config.rho
    high, low = config.sigma_max**inverse, config.sigma_min**inverse
    return [(high + i / (n - 1) * (low - high)) ** config.rho for i in range(n)] + [0.0]


def sample(denoiser: Denoiser, noise: Tensor, config: SamplerConfig, generator: torch.Generator) -> Tensor:
    """Samples (B, d) from standard normal noise (B, d) by the configured solver."""
    levels = noise_levels(config)
    x = noise * levels[0]
    if config.solver == "dpmpp_2m":
        return _dpmpp_2m(denoiser, x, levels)
    return _heun(denoiser, x, levels, config, generator, churn=config.solver == "heun_churn")


def _heun(
    denoiser: Denoiser,
    x: Tensor,
    levels: list[float],
    config: SamplerConfig,
    generator: torch.Generator,
    *,
    churn: bool,
) -> Tensor:
    """Algorithm 2 of Karras et al. 2022; without churn it is the deterministic Algorithm 1."""
    most = min(config.S_churn / config.steps, math.sqrt(2) - 1)
    gammas = [most if churn and config.S_tmin <= sigma <= config.S_tmax else 0.0 for sigma in levels]
    raised = [sigma * (1 + gamma) for sigma, gamma in zip(levels, gammas, strict=True)]
    at, at_raised = _each(levels, x), _each(raised, x)
    for i, (sigma, next_sigma) in enumerate(itertools.pairwise(levels)):
        hat = raised[i]
        if gammas[i]:
            fresh = torch.randn(x.shape, generator=generator, device=x.device)
            x = x + math.sqrt(hat**2 - sigma**2) * config.S_noise * fresh
        slope = (x - denoiser(x, at_raised[i])) / hat
        euler = x + (next_sigma - hat) * slope
        if next_sigma > 0:
            slope_end = (euler - denoiser(euler, at[i + 1])) / next_sigma
            euler = x + (next_sigma - hat) * (slope + slope_end) / 2
        x = euler
    return x


def _dpmpp_2m(denoiser: Denoiser, x: Tensor, levels: list[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) in the EDM's variables: one evaluation a step."""
    previous: Tensor | None = None
    step_before = 0.0
    for at, (sigma, next_sigma) in zip(_each(levels, x), itertools.pairwise(levels), strict=False):
        estimate = denoiser(x, at)
        if next_sigma == 0:
            return estimate
        step = math.log(sigma / next_sigma)
        direction = estimate
        if previous is not None:
            ratio = step / (2 * step_before)
            direction = (1 + ratio) * estimate - ratio * previous
        x = (next_sigma / sigma) * x - math.expm1(-step) * direction
        previous, step_before = estimate, step
    return x


def _each(levels: list[float], x: Tensor) -> tuple[Tensor, ...]:
    """Every level as a (1,) tensor beside x: one copy to the device for all, none while it samples."""
    values = torch.tensor(levels, dtype=x.dtype, device=x.device)
    return tuple(values[i : i + 1] for i in range(len(levels)))


def evaluations(config: SamplerConfig) -> int:
    """Network evaluations per sample."""
    return config.steps if config.solver == "dpmpp_2m" else 2 * config.steps - 1
