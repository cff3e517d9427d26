"""Multi-layer perceptrons of actors, critics and value.

Actors map states (B, S) to actions (B, A) in [-1, 1], and with `distribution` to what their loss is of (K, B, A): the
action alone, the members of an ensemble, or mean and log standard deviation of a Gaussian.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_STD = (-5.0, 2.0)
"""Bounds of a Gaussian's log standard deviations."""

LAYER_NORMS = ("none", "last", "all")


def hidden_layers(fan_in: int, hidden_dims: Sequence[int]) -> list[nn.Module]:
    """Linear and ReLU in turns."""
    layers: list[nn.Module] = []
    for pair in itertools.pairwise((fan_in, *hidden_dims)):
        layers += [nn.Linear(*pair), nn.ReLU()]
    return layers


class Actor(nn.Module):
    """Deterministic policy."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        layers = hidden_layers(state_dim, hidden_dims)
        self.net = nn.Sequential(*layers, nn.Linear((state_dim, *hidden_dims)[-1], action_dim), nn.Tanh())

    def forward(self, states: Tensor, distribution: bool = False) -> Tensor:
        actions: Tensor = self.net(states)
        return actions[None] if distribution else actions


class GaussianActor(Actor):
    """An actor with a log standard deviation per action, the same in every state; it acts by its mean."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__(state_dim, action_dim, hidden_dims)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, states: Tensor, distribution: bool = False) -> Tensor:
        mean = self.net(states)
        return torch.stack([mean, self.log_std.clamp(*LOG_STD).expand_as(mean)]) if distribution else mean


class SquashedActor(nn.Module):
    """tanh of a Gaussian whose deviation depends on the state; its distribution is that before the tanh."""

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*hidden_layers(state_dim, hidden_dims))
        self.mean = nn.Linear(hidden_dims[-1], action_dim)
        self.log_std = nn.Linear(hidden_dims[-1], action_dim)

    def forward(self, states: Tensor, distribution: bool = False) -> Tensor:
        features = self.trunk(states)
        if not distribution:
            return torch.tanh(self.mean(features))
        low, high = LOG_STD
        log_std = low + 0.5 * (high - low) * (torch.tanh(self.log_std(features)) + 1)
        return torch.stack([self.mean(features), log_std])


def _stacked(layers: Sequence[nn.Linear]) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (K, in, out) and biases (K, 1, out) of K layers of the same shape."""
    weight = torch.stack([layer.weight.detach().T for layer in layers]).contiguous()
    return nn.Parameter(weight), nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))


class EnsembleActor(nn.Module):
    """Deterministic actors as one batched network; it acts by the mean of its members' actions.

    Member i has the initial weights that `Actor` has under the i-th seed.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden_dims: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        members = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                members.append([m for m in Actor(state_dim, action_dim, hidden_dims).net if isinstance(m, nn.Linear)])
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layers in zip(*members, strict=True):
            weight, bias = _stacked(layers)
            self.weights.append(weight)
            self.biases.append(bias)

    def forward(self, states: Tensor, distribution: bool = False) -> Tensor:
        hidden = states.expand(len(self.weights[0]), -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = torch.relu(hidden) if i < last else torch.tanh(hidden)
        return hidden if distribution else hidden.mean(dim=0)


class Value(nn.Module):
    """States (B, S) to values (B,), whose last layer stays float32 (`corl.stacking.in_dtype`)."""

    def __init__(self, state_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        layers = hidden_layers(state_dim, hidden_dims)
        self.net = nn.Sequential(*layers, nn.Linear(hidden_dims[-1], 1))
        self.float32 = (f"net.{len(layers)}.",)

    def forward(self, states: Tensor) -> Tensor:
        last = self.net[-1]
        values: Tensor = last(self.net[:-1](states).to(last.weight.dtype))[..., 0]
        return values


class CriticEnsemble(nn.Module):
    """`count` independent Q-functions as one batched network: states (B, S), actions (B, A) to values (count, B).

    Each layer is a batched matrix product over weights (count, in, out), which gives the same numbers as separate
    networks in fewer calls. The last layer stays float32 (`corl.stacking.in_dtype`): bfloat16 has values of 75 in steps
    of 0.5. `layer_norm` stands before each hidden activation (`all`: RLPD, Ball et al. 2023, section 4.2), or behind
    the last one (`last`: the published ICDG code).
    """

    def __init__(
        self, state_dim: int, action_dim: int, hidden_dims: Sequence[int], count: int = 2, layer_norm: str = "none"
    ) -> None:
        super().__init__()
        sizes = (state_dim + action_dim, *hidden_dims, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for pair in itertools.pairwise(sizes):
            weight, bias = _stacked([nn.Linear(*pair) for _ in range(count)])
            self.weights.append(weight)
            self.biases.append(bias)
        self.layer_norm = layer_norm
        normed = {"none": (), "last": hidden_dims[-1:], "all": tuple(hidden_dims)}[layer_norm]
        self.gains = nn.ParameterList(torch.ones(count, 1, width) for width in normed)
        self.shifts = nn.ParameterList(torch.zeros(count, 1, width) for width in normed)
        self.float32 = tuple(f"{kind}.{len(sizes) - 2}" for kind in ("weights", "biases"))

    def forward(self, states: Tensor, actions: Tensor, which: int | Tensor | None = None) -> Tensor:
        """Values (K, B) of all critics, of the first `which`, or of the critics `which` (K,) int64; no other's."""
        chosen = which if isinstance(which, Tensor) else slice(which)
        hidden = torch.cat([states, actions], dim=-1).expand(len(self.weights[0][chosen]), -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[chosen], hidden.to(weight.dtype), weight[chosen])
            if i == last:
                break
            if self.layer_norm == "all":
                hidden = self._norm(hidden, i, chosen)
            hidden = torch.relu(hidden)
            if self.layer_norm == "last" and i == last - 1:
                hidden = self._norm(hidden, 0, chosen)
        return hidden[..., 0]

    def _norm(self, hidden: Tensor, i: int, chosen: slice | Tensor) -> Tensor:
        normed = F.layer_norm(hidden, hidden.shape[-1:])
        return torch.addcmul(self.shifts[i][chosen], normed, self.gains[i][chosen])


def perceptron(
    name: str, state_dim: int, action_dim: int, hidden_dims: Sequence[int], *, gaussian: bool = False
) -> nn.Module:
    """The usual `actor`, `critic` (a pair) or `value`."""
    if name == "critic":
        return CriticEnsemble(state_dim, action_dim, hidden_dims)
    if name == "value":
        return Value(state_dim, hidden_dims)
    return (GaussianActor if gaussian else Actor)(state_dim, action_dim, hidden_dims)
