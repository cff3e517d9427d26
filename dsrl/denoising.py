"""The noise predictor, its noise schedule, its loss and DDIM sampling (Ho et al. 2020; Song et al. 2021)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""epsilon(x (B, A), t (B,), observation (B, D)) -> (B, A)."""


def cosine_alpha_bar(steps: int) -> Tensor:
    """(T,) float64 cumulative products of 1 - beta for the squared-cosine schedule (Nichol & Dhariwal 2021, Eq. 17)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - beta, dim=0)


class NoisePredictor(nn.Module):
    """An MLP on the noisy chunk, the time's embedding and the observation; equal widths are joined by residuals."""

    frequencies: Tensor  # (time_dim / 2,)

    def __init__(self, action_dim: int, observation_dim: int, hidden_dims: Sequence[int], time_dim: int = 16) -> None:
        super().__init__()
        self.action_dim, self.time_dim = action_dim, time_dim
        half = time_dim // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / max(half - 1, 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(time_dim, 2 * time_dim), nn.Mish(), nn.Linear(2 * time_dim, time_dim))
        self.first = nn.Linear(action_dim + time_dim + observation_dim, hidden_dims[0])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(hidden_dims))
        self.last = nn.Linear(hidden_dims[-1], action_dim)

    def embed_time(self, t: Tensor) -> Tensor:
        """(B,) -> (B, time_dim)."""
        angle = t.float()[:, None] * self.frequencies
        embedded: Tensor = self.embed(torch.cat([angle.sin(), angle.cos()], dim=1))
        return embedded

    def trunk(self, h: Tensor) -> Tensor:
        """From the first layer's sum to epsilon."""
        for layer in self.hidden:
            out = layer(F.mish(h))
            h = h + out if out.shape == h.shape else out
        epsilon: Tensor = self.last(F.mish(h))
        return epsilon

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        return self.trunk(self.first(torch.cat([x, self.embed_time(t), observation], dim=1)))


def loss(
    predict: Denoise, x0: Tensor, observation: Tensor, alpha_bar: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of the predicted noise at uniform times (Ho et al., Eq. 14); x0 (B, A), alpha_bar (T,)."""
    t = torch.randint(len(alpha_bar), (len(x0),), generator=generator, device=x0.device)
    noise = torch.randn(x0.shape, generator=generator, device=x0.device)
    a = alpha_bar[t][:, None]
    return F.mse_loss(predict(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, observation).float(), noise)


@torch.no_grad()
def ddim(
    predict: Denoise,
    w: Tensor,
    observation: Tensor,
    alpha_bar: Tensor,
    times: Sequence[int],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B, A) noise to actions in [-1, 1] (Song et al., Eq. 12), with the estimate of x0 clipped to [-1, 1].

    A deterministic map of w and observation where eta is 0.
    """
    step = DDIM(alpha_bar, times, eta)
    x = w
    for i, t in enumerate(times):
        x = step(i, x, predict(x, torch.full((len(x),), t, device=x.device), observation), generator)
    return x


class DDIM:
    """The update of each sampling step, with its coefficients as plain numbers."""

    def __init__(self, alpha_bar: Tensor, times: Sequence[int], eta: float = 0.0) -> None:
        a = [float(alpha_bar[t]) for t in times]
        self.coefficients = []
        for now, after in zip(a, [*a[1:], 1.0], strict=True):
            sigma = eta * math.sqrt((1 - after) / (1 - now)) * math.sqrt(max(0.0, 1 - now / after))
            direction = math.sqrt(max(0.0, 1 - after - sigma**2))
            self.coefficients.append((math.sqrt(now), math.sqrt(1 - now), math.sqrt(after), direction, sigma))

    def __call__(self, i: int, x: Tensor, epsilon: Tensor, generator: torch.Generator | None = None) -> Tensor:
        signal, noise, next_signal, direction, sigma = self.coefficients[i]
        x0 = ((x - noise * epsilon) / signal).clamp(-1, 1)
        result = next_signal * x0 + (direction / noise) * (x - signal * x0)
        if sigma:
            result = result + sigma * torch.randn(x.shape, generator=generator, device=x.device)
        return result


class FastSampler:
    """`ddim` for a frozen network: what does not change along the chain is computed once.

    The first layer is a sum of three products. Its part of the time is a row per step, known beforehand; its part of
    the observation is one product per call instead of one per step. Equal to `ddim` up to rounding, and deterministic.
    """

    def __init__(self, network: NoisePredictor, alpha_bar: Tensor, times: Sequence[int]) -> None:
        self.network, self.step = network, DDIM(alpha_bar, times)
        a, b = network.action_dim, network.action_dim + network.time_dim
        weight = network.first.weight.detach()
        self.on_action, self.on_observation = weight[:, :a].T.contiguous(), weight[:, b:].contiguous()
        with torch.no_grad():
            embedded = network.embed_time(torch.tensor(times, device=weight.device))
            self.time_rows = F.linear(embedded, weight[:, a:b], network.first.bias)

    @torch.no_grad()
    def __call__(self, w: Tensor, observation: Tensor) -> Tensor:
        """(B, A), (B, D) -> (B, A)."""
        seen = F.linear(observation, self.on_observation)
        x = w
        for i, row in enumerate(self.time_rows):
            x = self.step(i, x, self.network.trunk(torch.addmm(seen + row, x, self.on_action)))
        return x
