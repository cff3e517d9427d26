"""A trained generator: network, normalisation and what it was trained on, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.config import DenoiserConfig
from diffusion.denoisers import build
from diffusion.normalizer import Normalizer, scales
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

    @classmethod
    def load(cls, path: Path, layout: FactoredLayout, device: torch.device) -> DiffusionModel:
        """A generator from a checkpoint of `diffusion.train`. Raises `DataError` where it is not one for `layout`."""
        checkpoint = load_checkpoint(path)
        try:
            network = build(layout, DenoiserConfig(**checkpoint["denoiser"]))
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
        return cls(network, normalizer, sigma_data, checkpoint["step"], train["precision"])
