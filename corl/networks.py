"""Multi-layer perceptrons of actor, critics and value."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Actor(nn.Module):
    """Deterministic policy: normalised states (B, S) to actions (B, A) in (-1, 1)."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = (state_dim, *hidden)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], action_dim), nn.Tanh())

    def forward(self, states: Tensor) -> Tensor:
        return self.net(states)


class GaussianActor(Actor):
    """An actor with a log standard deviation per action, the same in every state; it acts by its mean."""

    LOG_STD = (-5.0, 2.0)

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__(state_dim, action_dim, hidden)
        self.log_std = nn.Parameter(torch.zeros(action_dim))

    def forward(self, states: Tensor, with_log_std: bool = False) -> Tensor:
        """Means (B, A); with their log standard deviations (2, B, A)."""
        mean = self.net(states)
        return torch.stack([mean, self.log_std.clamp(*self.LOG_STD).expand_as(mean)]) if with_log_std else mean


class EnsembleActor(nn.Module):
    """Deterministic actors as one batched network; it acts by the mean of its members' actions.

    Normalised states (B, S) to actions (B, A) in (-1, 1), or with `each` to every member's (M, B, A). Member i has
    the initial weights that `Actor` has under the i-th seed.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        members = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                members.append([m for m in Actor(state_dim, action_dim, hidden).net if isinstance(m, nn.Linear)])
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layers in zip(*members, strict=True):
            self.weights.append(nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]).contiguous()))
            self.biases.append(nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers])))

    def forward(self, states: Tensor, each: bool = False) -> Tensor:
        hidden = states.expand(len(self.weights[0]), -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = torch.relu(hidden) if i < last else torch.tanh(hidden)
        return hidden if each else hidden.mean(dim=0)


class Value(nn.Module):
    """States (B, S) to values (B,), whose last layer stays float32 (`corl.learner.in_dtype`)."""

    def __init__(self, state_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise((state_dim, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))
        self.float32 = (f"net.{len(layers)}.",)

    def forward(self, states: Tensor) -> Tensor:
        last = self.net[-1]
        return last(self.net[:-1](states).to(last.weight.dtype))[..., 0]


class TwinCritic(nn.Module):
    """Two independent Q-functions as one batched network: states (B, S), actions (B, A) to values (2, B).

    Each layer is a batched matrix product over weights (2, in, out), which gives the same numbers as two networks in
    half the calls. The last layer stays float32 (`corl.learner.in_dtype`): bfloat16 has values of 75 in steps of 0.5.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int], count: int = 2) -> None:
        super().__init__()
        sizes = (state_dim + action_dim, *hidden, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            # The initialisation of nn.Linear, once per critic.
            layers = [nn.Linear(fan_in, fan_out) for _ in range(count)]
            self.weights.append(nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]).contiguous()))
            self.biases.append(nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers])))
        self.float32 = tuple(f"{kind}.{len(sizes) - 2}" for kind in ("weights", "biases"))

    def forward(self, states: Tensor, actions: Tensor, count: int | None = None) -> Tensor:
        """Values (2, B), or those of the first `count` critics alone."""
        which = slice(count)
        hidden = torch.cat([states, actions], dim=1).expand(len(self.weights[0][which]), -1, -1)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[which], hidden.to(weight.dtype), weight[which])
            if i < last:
                hidden = torch.relu(hidden)
        return hidden[..., 0]
