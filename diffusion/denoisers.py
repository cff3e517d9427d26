"""All denoisers behind one interface: F(x (B, 164), c_noise (B or 1,), condition (B or 1, 16)) -> (B, 164)."""

from __future__ import annotations

from torch import nn

from diffusion.config import DenoiserConfig
from diffusion.dit import SemanticDiT, UniformDiT
from diffusion.mlp import CompositionalMLP, MonolithicMLP
from offline_compositional_rl_datasets.layout import FactoredLayout

NETWORKS: dict[str, type[nn.Module]] = {
    "dit": SemanticDiT,
    "dit_uniform": UniformDiT,
    "monolithic": MonolithicMLP,
    "compositional": CompositionalMLP,
}


def build(layout: FactoredLayout, config: DenoiserConfig) -> nn.Module:
    """An untrained denoiser, with weights from torch's global generator."""
    return NETWORKS[config.kind](layout, config)
