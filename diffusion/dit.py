"""Diffusion transformers over the parts of a transition (ICDG, section 4; blocks after Peebles & Xie 2023, adaLN-Zero).

The semantic compositional one cuts a transition into its semantic tokens. Tokens that an axis labels have one encoder
and one decoder per element of that axis, shared by s and s'. The uniform one cuts it into patches of equal size. Either
way a transformer mixes the tokens, modulated by noise level and task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.denoiser import Denoiser, NetworkSizes
from diffusion.elements import TokenMap, one_hots_of, token_sizes
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import ConfigError
from runtime.layers import attend, modulate, position_table

TIME_FEATURES = 256


class Attention(nn.Module):
    """Full multi-head self-attention over the tokens."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, hidden = x.shape
        qkv: Tensor = self.qkv(x)
        # (B, heads, T, D / heads) each
        q, k, v = qkv.view(batch, tokens, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v) if x.device.type == "cpu" else F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, hidden))
        return out


class AdaLNBlock(nn.Module):
    """Attention and MLP, each behind a modulated norm and a gate (adaLN-Zero: both gates start closed)."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, mlp_ratio * hidden), nn.GELU(approximate="tanh"), nn.Linear(mlp_ratio * hidden, hidden)
        )
        self.modulation = nn.Linear(hidden, 6 * hidden)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, D), conditioning c after its SiLU (B or 1, D)."""
        modulation: Tensor = self.modulation(c)[:, None]  # (B or 1, 1, 6 D)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self.attention(modulate(x, shift1, scale1))
        mixed: Tensor = self.mlp(modulate(x, shift2, scale2))
        return x + gate2 * mixed


class Transformer(Denoiser):
    """What both transformers share: embeddings of noise level and task, blocks, and the modulated last layer."""

    positions: Tensor  # (T, D)

    @classmethod
    def check(cls, sizes: NetworkSizes) -> None:
        super().check(sizes)
        if sizes.hidden % sizes.heads or sizes.hidden % 2:
            raise ConfigError(f"hidden {sizes.hidden}: expected an even multiple of heads ({sizes.heads})")

    def _add_trunk(self, layout: FactoredLayout, config: NetworkSizes, tokens: int, fan_out: int) -> None:
        """Add the shared parts for so many tokens; the last layer gives `fan_out` features each."""
        hidden = config.hidden
        self.time_embedding = _embedder(TIME_FEATURES, hidden)
        if config.order == "state_first":
            self.rest_time_embedding = _embedder(TIME_FEATURES, hidden)
        self.condition_embedding = _embedder(layout.condition_dim, hidden)
        self.blocks = nn.ModuleList(AdaLNBlock(hidden, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_modulation = nn.Linear(hidden, 2 * hidden)
        self.final = nn.Linear(hidden, fan_out)
        self.register_buffer("positions", position_table(tokens, hidden), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and "_embedding." in name:
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, AdaLNBlock):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.final_modulation.weight)
        nn.init.zeros_(self.final.weight)

    def _mix(self, hidden: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T, D) to (B, T, fan_out). One noise level and task for the batch are embedded once.

        c_noise is (B or 1,), or (B or 1, 2) where state and rest have levels of their own.
        """
        times = self.time_scale * (c_noise if c_noise.dim() == 2 else c_noise[:, None])
        c = self.time_embedding(_time_features(times[:, 0])) + self.condition_embedding(condition)  # (B or 1, D)
        if times.shape[1] == 2:
            c = c + self.rest_time_embedding(_time_features(times[:, 1]))
        c = F.silu(c)
        hidden = hidden + self.positions[: hidden.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, c)
        shift, scale = self.final_modulation(c)[:, None].chunk(2, dim=-1)  # (B or 1, 1, D) each
        out: Tensor = self.final(modulate(hidden, shift, scale))
        return out


class SemanticDiT(Transformer):
    """Tokens with a meaning. F(x (B, 164), c_noise (B or 1,), condition (B or 1, 16)) -> (B, 164).

    x may be a prefix of the transition that ends with a token, and so is then the result.
    """

    orders = ("joint", "state_first")

    def __init__(self, layout: FactoredLayout, config: NetworkSizes) -> None:
        super().__init__(layout, config)
        dims = token_sizes(layout)
        self.encoders = TokenMap.linear(layout, {name: (dim, config.hidden) for name, dim in dims.items()})
        self.decoders = TokenMap.linear(layout, {name: (config.hidden, dim) for name, dim in dims.items()})
        self._add_trunk(layout, config, len(layout.tokens), config.hidden)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        one_hots = one_hots_of(condition, self.layout)
        parts = [x[:, token.part] for token in self.layout.tokens if token.part.stop <= x.shape[1]]
        hidden = torch.stack(self.encoders(parts, one_hots), dim=1)  # (B, T, D)
        hidden = self._mix(hidden, c_noise, condition)
        return torch.cat(self.decoders(list(hidden.unbind(1)), one_hots), dim=1)


class UniformDiT(Transformer):
    """Patches of equal size, whatever they cut across; the task enters through the modulation alone."""

    def __init__(self, layout: FactoredLayout, config: NetworkSizes) -> None:
        super().__init__(layout, config)
        self.dim, self.patch = layout.transition_dim, config.patch
        tokens = -(-self.dim // self.patch)
        self.patch_in = nn.Linear(self.patch, config.hidden)
        self._add_trunk(layout, config, tokens, self.patch)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        patches = F.pad(x, (0, -self.dim % self.patch)).unflatten(1, (-1, self.patch))
        return self._mix(self.patch_in(patches), c_noise, condition).flatten(1)[:, : self.dim]


def _embedder(fan_in: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden))


def _time_features(t: Tensor) -> Tensor:
    """(B,) to (B, 256): [cos(t f_k), sin(t f_k)], f_k = 10000^(-k/128)."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / half))
    angles = t[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
