"""A trained generator: network, normalisation and what it was trained on, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import edm
from diffusion.config import PRECISIONS
from diffusion.denoisers import DenoiserConfig, build
from diffusion.normalizer import Normalizer, scales
from diffusion.state_first import CLEAN, TransitionParts, denoise_rest
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.checkpoint import build_within, entry, load_checkpoint, load_weights, vector
from runtime.config import from_mapping
from runtime.errors import DataError

_ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class DiffusionModel:
    """The averaged network with its normaliser, ready to sample from."""

    network: nn.Module
    normalizer: Normalizer
    sigma_data: Tensor
    step: int
    precision: str = "auto"
    parts: TransitionParts | None = None  # where the state comes first
    reward_range: tuple[float, float] = _ANY  # of what it learned from
    saw_terminals: bool = True
    canonical_quaternions: bool = True  # whether it learned from relative quaternions of one sign

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout, device: torch.device) -> DiffusionModel:
        """A generator from a checkpoint of `diffusion.train`. Raises `DataError` where it is not one for `layout`."""
        checkpoint = load_checkpoint(path)
        train = entry(checkpoint, "train", Mapping, path)
        mean, std = (vector(checkpoint, f"normalizer.{name}", layout.transition_dim, path) for name in ("mean", "std"))
        sigma, follow_scale = (float(entry(train, name, (float, int), path)) for name in ("sigma_data", "follow_scale"))
        delta_next, precision = entry(train, "delta_next", bool, path), entry(train, "precision", str, path)
        step = entry(checkpoint, "step", int, path)
        if not (std > 0).all() or not 0 < sigma < math.inf or not 0 < follow_scale < math.inf:
            raise DataError(f"{path}: has scales that are not above 0, expected those of a generator")
        if precision not in PRECISIONS:
            raise DataError(f"{path}: precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
        denoiser = from_mapping(DenoiserConfig, entry(checkpoint, "denoiser", Mapping, path), source=str(path))
        weights = entry(checkpoint, "ema", Mapping, path)
        if denoiser.depth > len(weights):
            raise DataError(f"{path}: claims {denoiser.depth:,} blocks, expected those of its {len(weights)} weights")
        network = build_within(path, lambda: build(layout, denoiser))
        load_weights(network, weights, path, "ema")
        normalizer = Normalizer(mean, std, layout, delta_next).to(device)
        reward_range = entry(checkpoint, "reward_range", Sequence, path) if "reward_range" in checkpoint else _ANY
        if len(reward_range) != 2 or not all(isinstance(bound, (float, int)) for bound in reward_range):
            raise DataError(f"{path}: reward_range {list(reward_range)}, expected two numbers")
        saw_terminals = entry(checkpoint, "saw_terminals", bool, path) if "saw_terminals" in checkpoint else True
        network = network.to(device).eval().requires_grad_(False)
        parts = TransitionParts.of(layout, device) if denoiser.order == "state_first" else None
        return cls(
            *(network, normalizer, sigma * scales(layout, follow_scale).to(device), step, precision, parts),
            reward_range=(float(reward_range[0]), float(reward_range[1])),
            saw_terminals=saw_terminals,
            canonical_quaternions=entry(train, "canonical_quaternions", bool, path),
        )

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Estimate (B, D) of normalised transitions from x (B, D), noised by `noised` at sigma (1,)."""
        if self.parts is None:
            return edm.denoise(self.network, x, sigma, condition, self.sigma_data)
        clean = torch.full_like(sigma, CLEAN)
        return denoise_rest(self.network, x, clean, sigma, condition, self.parts)

    def noised(self, y: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """Normalised y (B, D) with noise (B, D) at sigma; where the state comes first it is nearly clean."""
        if self.parts is None:
            return y + sigma * noise
        return y + torch.where(self.parts.state, CLEAN, sigma) * noise
