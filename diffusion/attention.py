"""What the tokens of a transition attend to in a trained semantic transformer, by layer, head and noise level.

ICDG holds that attention finds the graph of the task's factors, which earlier compositional networks fix by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from diffusion.config import SamplerConfig
from diffusion.dit import Attention, SemanticDiT
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import ConfigError

K = TypeVar("K")
SIGMAS = (0.02, 0.1, 0.5, 2.0, 10.0)
"""Noise levels to look at, in standard deviations of the data: from almost clean to almost noise."""


@dataclass(frozen=True)
class AttentionMaps:
    """`weights` (tasks, sigmas, layers, heads, T, T): how much the row's token draws on the column's; rows sum to 1.

    `conditions` (tasks, 16) are the tasks, `sigmas` the noise levels.
    """

    weights: np.ndarray
    conditions: np.ndarray
    sigmas: tuple[float, ...]
    layout: FactoredLayout

    def mean(self, *axes: str) -> np.ndarray:
        """The maps averaged over the named of `task`, `sigma`, `layer`, `head`."""
        averaged = tuple(("task", "sigma", "layer", "head").index(axis) for axis in axes)
        return np.asarray(self.weights.mean(axis=averaged))

    def by_element(self) -> dict[tuple[str, str], np.ndarray]:
        """(axis, element) -> maps (sigmas, layers, heads, T, T) averaged over the tasks that have the element."""
        found = {}
        for axis, elements in self.layout.axes:
            owners = self.conditions[:, self.layout.condition_slices[axis]] > 0
            for index, element in enumerate(elements):
                if owners[:, index].any():
                    found[axis, element] = self.weights[owners[:, index]].mean(axis=0)
        return found


def attention_weights(attention: Attention, x: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) of an attention layer for its input x (B, T, D): (B, heads, T, T)."""
    batch, tokens, hidden = x.shape
    qkv: Tensor = attention.qkv(x)
    q, k, _ = qkv.view(batch, tokens, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    scores: Tensor = (q @ k.transpose(-1, -2)) * (hidden // attention.heads) ** -0.5
    return scores.softmax(-1)


@contextlib.contextmanager
def recorded(network: SemanticDiT) -> Iterator[list[Tensor]]:
    """While open, every forward pass adds its layers' mean weights (heads, T, T) over the batch, in their order."""
    seen: list[Tensor] = []

    def record(attention: Attention, inputs: tuple[Tensor, ...]) -> None:
        seen.append(attention_weights(attention, inputs[0].float()).mean(dim=0))

    layers = (module for module in network.modules() if isinstance(module, Attention))
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def attention_maps(
    model: DiffusionModel, samples: Mapping[str, np.ndarray], conditions: Mapping[str, np.ndarray], *,
    sigmas: Sequence[float] = SIGMAS, seed: int = 0,
) -> AttentionMaps:  # fmt: skip
    """Maps for transitions (N, 164) of each task, noised to each level; `conditions` (16,) by the same names.

    Raises `ConfigError` where the generator's network has no tokens with a meaning.
    """
    network = semantic_network(model)
    weights = []
    for name, matrix in samples.items():
        y = model.normalizer.normalize(torch.from_numpy(matrix).to(model.normalizer.mean.device))
        condition = torch.from_numpy(conditions[name]).to(y.device)[None]
        generator = torch.Generator(y.device).manual_seed(seed)
        per_sigma = []
        for sigma in sigmas:
            noise = torch.randn(y.shape, generator=generator, device=y.device)
            with recorded(network) as layers:
                model.denoise(model.noised(y, sigma, noise), y.new_tensor([sigma]), condition)
            per_sigma.append(torch.stack(layers))
        weights.append(torch.stack(per_sigma).cpu().numpy())
    return AttentionMaps(
        np.stack(weights), np.stack([conditions[name] for name in samples]), tuple(sigmas), model.normalizer.layout
    )


def semantic_network(model: DiffusionModel) -> SemanticDiT:
    """Raises `ConfigError` where the generator is another network."""
    if not isinstance(model.network, SemanticDiT):
        kind = type(model.network).__name__
        raise ConfigError(f"the generator is a {kind}: expected the semantic transformer, whose tokens have a meaning")
    return model.network


def own_samples(
    model: DiffusionModel, conditions: Mapping[K, np.ndarray], count: int, *, seed: int = 0
) -> dict[K, np.ndarray]:
    """Key of the task -> `count` transitions (count, 164) of the generator's own, every task from the same noise."""
    sampling = SamplerConfig(solver="dpmpp_2m", steps=16, num_samples=count, batch_size=count)
    return {name: generate(model, condition, sampling, seed=seed) for name, condition in conditions.items()}
