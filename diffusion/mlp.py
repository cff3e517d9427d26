"""The two residual perceptrons that the transformers are compared with: monolithic, and composed by hand.

The published networks hold layers that never take part; they are left out here, so that the counts of parameters are
the published ones less those (`tests/diffusion/test_denoisers.py`).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from diffusion.denoiser import Denoiser, NetworkSizes
from diffusion.elements import ElementLinear, TokenMap, one_hots_of, token_sizes
from offline_compositional_rl_datasets.graphs import GRAPHS
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.layers import ElementNorm

TIME_FREQUENCIES = 8

GRAPH = GRAPHS["cp"]
"""Obstacle -> object -> goal -> robot; the last node's output, the whole state, is the network's."""


class TimeEmbedding(nn.Module):
    """Noise level (B,) to (B, dim): [t, sin(2 pi t w), cos(2 pi t w)] with fixed random w, through two layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(TIME_FREQUENCIES))
        self.net = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES + 1, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        angles = 2 * math.pi * t[:, None] * self.frequencies
        features: Tensor = self.net(torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1))
        return features


class MonolithicMLP(Denoiser):
    """A residual MLP over the whole transition. F(x (B, 164), c_noise (B or 1,), condition (B or 1, 16)) -> (B, 164).

    The task enters by the choice of the encoders of the state's factors alone.
    """

    def __init__(self, layout: FactoredLayout, config: NetworkSizes) -> None:
        super().__init__(layout, config)
        dim = layout.transition_dim
        axes = {token.encoder: token.axis for token in layout.tokens}
        labelled = {name: (size, size) for name, size in token_sizes(layout).items() if axes[name]}
        self.encoders = TokenMap.linear(layout, labelled)
        self.time_embedding = TimeEmbedding(dim)
        self.first = nn.Linear(dim, config.hidden)
        self.blocks = nn.ModuleList(nn.Linear(config.hidden, config.hidden) for _ in range(config.depth))
        self.last = nn.Linear(config.hidden, dim)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        tokens = self.layout.tokens
        parts = self.encoders([x[:, token.part] for token in tokens], one_hots_of(condition, self.layout))
        parts = [nn.functional.silu(p) if token.axis else p for p, token in zip(parts, tokens, strict=True)]
        hidden = self.first(torch.cat(parts, dim=1) + self.time_embedding(self.time_scale * c_noise))
        for block in self.blocks:
            hidden = hidden + block(torch.relu(hidden))
        out: Tensor = self.last(torch.relu(hidden))
        return out


class ElementMLP(nn.Module):
    """Layers of an axis' elements: Linear, LayerNorm, ReLU; `linear_end` leaves the last one a plain Linear."""

    def __init__(self, elements: int, sizes: tuple[int, ...], *, linear_end: bool = False) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        layers = [ElementLinear(elements, *pair) for pair in pairs]
        self.layers = nn.ModuleList(layers)
        normed = pairs[:-1] if linear_end else pairs
        self.norms = nn.ModuleList(ElementNorm(elements, fan_out) for _, fan_out in normed)
        for i, layer in enumerate(layers):
            ends = linear_end and i == len(pairs) - 1
            limit = 0.003 if ends else layer.weight.shape[-1] ** -0.5
            nn.init.uniform_(layer.weight, -limit, limit)
            if ends:
                nn.init.uniform_(layer.bias, -limit, limit)
            else:
                nn.init.constant_(layer.bias, 0.1)

    def forward(self, x: Tensor, one_hot: Tensor) -> Tensor:
        """x (B, T, in), one-hot (B or 1, E) to (B, T, out)."""
        for i, layer in enumerate(self.layers):
            x = layer(x, one_hot)
            if i < len(self.norms):
                x = torch.relu(self.norms[i](x, one_hot))
        return x


class GraphBlock(nn.Module):
    """The hard-coded graph on s and, with the same weights, on s', then a residual product over all of it."""

    def __init__(self, layout: FactoredLayout, projection: int) -> None:
        super().__init__()
        self.layout = layout
        elements = {axis: len(names) for axis, names in layout.axes}
        factors = {factor.name: factor for factor in layout.factors}
        self.axes = [factors[node.factor].axis for node in GRAPH]
        self.before, self.after = nn.ModuleList(), nn.ModuleList()
        message = 0
        for node in GRAPH:
            own, count = factors[node.factor].dim * projection, elements[factors[node.factor].axis]
            self.before.append(ElementMLP(count, (own, *node.own)))
            last = node.joint is None
            widths = (message + (own, *node.own)[-1], node.joint or layout.state_dim * projection)
            self.after.append(ElementMLP(count, widths, linear_end=last))
            message = widths[-1]
        width = layout.transition_dim * projection
        self.mix = nn.Linear(width, width)
        names = [factor.name for factor in layout.factors]
        self.positions = [names.index(node.factor) for node in GRAPH]

    def forward(self, parts: list[Tensor], one_hots: dict[str, Tensor]) -> list[Tensor]:
        """Projected tokens (B, d_t projection), in the layout's order, to the same."""
        count = len(GRAPH)
        # [s factors, action, reward, s' factors, terminal]
        states = [torch.stack(pair, dim=1) for pair in zip(parts[:count], parts[count + 2 : -1], strict=True)]
        message: list[Tensor] = []  # of the node before, if there is one: (B, 2, width)
        for i, position in enumerate(self.positions):
            one_hot = one_hots[self.axes[i]]
            own = self.before[i](states[position], one_hot)
            message = [self.after[i](torch.cat([*message, own], dim=-1), one_hot)]
        state, next_state = message[0].unbind(1)
        joined = torch.cat([state, *parts[count : count + 2], next_state, parts[-1]], dim=1)
        mixed = self.mix(torch.relu(joined))
        return [part + m for part, m in zip(parts, mixed.split([p.shape[1] for p in parts], dim=1), strict=True)]


class CompositionalMLP(Denoiser):
    """Residual blocks whose graph over the factors is fixed by hand. Arguments and result as `MonolithicMLP`."""

    def __init__(self, layout: FactoredLayout, config: NetworkSizes) -> None:
        super().__init__(layout, config)
        sizes, projection = token_sizes(layout), config.hidden
        self.time_embedding = TimeEmbedding(layout.transition_dim)
        self.project = nn.ModuleDict({name: nn.Linear(dim, dim * projection) for name, dim in sizes.items()})
        self.blocks = nn.ModuleList(GraphBlock(layout, projection) for _ in range(config.depth))
        self.unproject = nn.ModuleDict({name: nn.Linear(dim * projection, dim) for name, dim in sizes.items()})

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        one_hots = one_hots_of(condition, self.layout)
        x = x + self.time_embedding(self.time_scale * c_noise)
        tokens = self.layout.tokens
        parts = [self.project[token.encoder](x[:, token.part]) for token in tokens]
        for block in self.blocks:
            parts = block(parts, one_hots)
        outputs = [self.unproject[t.encoder](torch.relu(p)) for t, p in zip(tokens, parts, strict=True)]
        return torch.cat(outputs, dim=1)
