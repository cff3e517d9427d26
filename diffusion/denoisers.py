"""All denoisers: the kinds of networks, and the published ones by name with what each trains and samples with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion.denoiser import Denoiser, NetworkSizes
from diffusion.dit import SemanticDiT, UniformDiT
from diffusion.mlp import CompositionalMLP, MonolithicMLP
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.config import to_dict
from runtime.errors import ConfigError

NETWORKS: dict[str, type[Denoiser]] = {
    "dit": SemanticDiT,
    "dit_uniform": UniformDiT,
    "monolithic": MonolithicMLP,
    "compositional": CompositionalMLP,
}


@dataclass(frozen=True)
class DenoiserConfig(NetworkSizes):
    """Which network and its size.

    `dit` is the semantic compositional diffusion transformer, `dit_uniform` the same over patches of `patch` numbers,
    `monolithic` a residual MLP of width `hidden` and `depth` blocks, `compositional` the hard-coded graph of `depth`
    blocks in which each number of a transition is projected to `hidden` features.
    """

    kind: str = "dit"

    def __post_init__(self) -> None:
        if self.kind not in NETWORKS:
            raise ConfigError(f"kind {self.kind!r}: expected one of {', '.join(NETWORKS)}")
        super().__post_init__()
        NETWORKS[self.kind].check(self)


def build(layout: FactoredLayout, config: DenoiserConfig) -> Denoiser:
    """An untrained denoiser, with weights from torch's global generator."""
    return NETWORKS[config.kind](layout, config)


@dataclass(frozen=True)
class Preset:
    """A published network, and what its code sets otherwise than `TrainConfig` and `SamplerConfig` by default."""

    network: DenoiserConfig
    training: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """To lie under a configuration's `network`, `training` and `sampling`."""
        return {"network": to_dict(self.network), "training": dict(self.training), "sampling": dict(self.sampling)}


_PERCEPTRONS: dict[str, Any] = {
    "training": {"learning_rate": 3e-4, "weight_decay": 0.0},
    "sampling": {"batch_size": 100_000},
}

DENOISERS: dict[str, Preset] = {
    "dit": Preset(DenoiserConfig()),
    "DiT1D-XS": Preset(DenoiserConfig(hidden=256, depth=6, heads=4)),
    "DiT1D-S": Preset(DenoiserConfig(hidden=384, depth=8, heads=6)),
    "DiT1D-B": Preset(DenoiserConfig(hidden=512, depth=12, heads=8)),
    "DiT1D-L": Preset(DenoiserConfig(hidden=768, depth=16, heads=12)),
    "DiT1D-XL": Preset(DenoiserConfig(hidden=1024, depth=24, heads=16)),
    "dit_uniform": Preset(DenoiserConfig(kind="dit_uniform")),
    "monolithic": Preset(DenoiserConfig(kind="monolithic", hidden=2048, depth=6), **_PERCEPTRONS),
    "compositional": Preset(DenoiserConfig(kind="compositional", hidden=32, depth=3), **_PERCEPTRONS),
}
"""By the name that `--denoiser` takes and that folders bear."""


def denoiser_named(name: str) -> Preset:
    """Raises `ConfigError` for an unknown name."""
    if name not in DENOISERS:
        raise ConfigError(f"denoiser {name!r}: expected one of {', '.join(DENOISERS)}")
    return DENOISERS[name]
