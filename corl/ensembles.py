"""Networks of online learning: a squashed Gaussian actor, and critics of which any number is one batched network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corl.networks import TwinCritic

LAYER_NORMS = ("none", "last", "all")


class CriticEnsemble(TwinCritic):
    """`count` independent Q-functions: observations (B, D), actions (B, A) to values (count, B).

    `layer_norm` stands before each hidden activation (`all`: RLPD, Ball et al. 2023, section 4.2), or behind the last
    one (`last`: the published ICDG code).
    """

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: Sequence[int], count: int = 2, layer_norm: str = "last"
    ) -> None:
        super().__init__(obs_dim, action_dim, hidden, count)
        self.layer_norm = layer_norm
        normed = {"none": (), "last": hidden[-1:], "all": tuple(hidden)}[layer_norm]
        self.gains = nn.ParameterList(torch.ones(count, 1, width) for width in normed)
        self.shifts = nn.ParameterList(torch.zeros(count, 1, width) for width in normed)

    def forward(self, states: Tensor, actions: Tensor, which: Tensor | None = None) -> Tensor:
        """Values (count, B), or those of the critics `which` (K,) int64 alone (K, B): no other is computed."""
        which = slice(None) if which is None else which
        hidden = torch.cat([states, actions], dim=-1).expand(len(self.weights[0][which]), -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[which], hidden.to(weight.dtype), weight[which])
            if i == last:
                break
            if self.layer_norm == "all":
                hidden = self._norm(hidden, i, which)
            hidden = torch.relu(hidden)
            if self.layer_norm == "last" and i == last - 1:
                hidden = self._norm(hidden, 0, which)
        return hidden[..., 0]

    def _norm(self, hidden: Tensor, i: int, which: slice | Tensor) -> Tensor:
        normed = F.layer_norm(hidden, hidden.shape[-1:])
        return torch.addcmul(self.shifts[i][which], normed, self.gains[i][which])


class SquashedActor(nn.Module):
    """tanh of a Gaussian: observations (B, D) to its means and log standard deviations (2, B, A)."""

    LOG_STD = (-5.0, 2.0)

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip((obs_dim, *hidden), hidden, strict=False):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(hidden[-1], action_dim)
        self.log_std = nn.Linear(hidden[-1], action_dim)

    def forward(self, observations: Tensor) -> Tensor:
        features = self.trunk(observations)
        low, high = self.LOG_STD
        log_std = low + 0.5 * (high - low) * (torch.tanh(self.log_std(features)) + 1)
        return torch.stack([self.mean(features), log_std])


def squash(gaussian: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (B, A) = tanh(mean + std noise) and their log-densities (B,), from (2, B, A) and standard normal noise.

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)) is exact where the direct form rounds to log 0.
    """
    mean, log_std = gaussian.unbind(0)
    raw = mean + log_std.exp() * noise
    log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squashing = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return torch.tanh(raw), (log_density - squashing).sum(dim=-1)
