"""A trained generator: network, normalisation and what it was trained on, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import edm
from diffusion.config import DenoiserConfig
from diffusion.denoisers import build
from diffusion.normalizer import Normalizer, scales
from diffusion.state_first import CLEAN, Parts, denoise_rest
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.checkpoint import load_checkpoint
from runtime.errors import DataError


@dataclass(frozen=True)
class DiffusionModel:
    """The averaged network with its normaliser, ready to sample from."""

    network: nn.Module
    normalizer: Normalizer
    sigma_data: Tensor
    step: int
    precision: str = "auto"
    parts: Parts | None = None  # where the state comes first

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout, device: torch.device) -> DiffusionModel:
        """A generator from a checkpoint of `diffusion.train`. Raises `DataError` where it is not one for `layout`."""
        checkpoint = load_checkpoint(path)
        try:
            denoiser = DenoiserConfig(**checkpoint["denoiser"])
            network = build(layout, denoiser)
            network.load_state_dict(checkpoint["ema"])
            mean, std = checkpoint["normalizer.mean"], checkpoint["normalizer.std"]
            train = checkpoint["train"]
        except (KeyError, RuntimeError, TypeError) as error:
            raise DataError(f"{path}: not a generator for this layout ({str(error).splitlines()[0]})") from error
        if mean.shape != (layout.transition_dim,):
            raise DataError(f"{path}: made for {len(mean)} dimensions, expected {layout.transition_dim}")
        normalizer = Normalizer(mean, std, layout, train["delta_next"]).to(device)
        network = network.to(device).eval().requires_grad_(False)
        sigma_data = train["sigma_data"] * scales(layout, train["follow_scale"]).to(device)
        parts = Parts.of(layout, device) if denoiser.order == "state_first" else None
        return cls(network, normalizer, sigma_data, checkpoint["step"], train["precision"], parts)

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
