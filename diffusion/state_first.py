"""A transition in its causal order: the state first, then all that follows from it, given the state.

One network learns both: p(state) from the state's tokens alone, and p(rest | state) from all tokens, the state being
slightly noised (conditioning augmentation; Ho et al. 2022, "Cascaded diffusion models") and the rest at noise levels of
its own. The state here is its positions; velocities, which mostly echo the last action, belong to the rest.

A network F(x, c_noise (B or 1, 2), condition) takes a prefix x of the transition, the state (B, S) or all of it (B, D),
and the noise levels ln(sigma) / 4 of the two parts. Preconditioning is EDM's, with each part's own level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.edm import Network
from offline_compositional_rl_datasets.layout import FactoredLayout

UNKNOWN = 80.0
"""The noise level of a part of which nothing is known; the network is given zeros for it."""

CLEAN = 0.05
"""The noise level of a state that the rest is denoised with where the network is looked into."""


@dataclass(frozen=True)
class TransitionParts:
    """Masks of a transition (D,): `state` its state's positions, `rest` all else."""

    state: Tensor
    state_dim: int

    @classmethod
    def of(cls, layout: FactoredLayout, device: torch.device | str = "cpu") -> TransitionParts:
        state = torch.zeros(layout.transition_dim, dtype=torch.bool)
        state[layout.state] = True
        for part in layout.velocities:
            state[part] = False
        return cls(state.to(device), layout.state_dim)

    @property
    def rest(self) -> Tensor:
        return ~self.state

    @property
    def positions(self) -> Tensor:
        """(S,) mask of positions within a state."""
        return self.state[: self.state_dim]


def denoise_state(network: Network, x: Tensor, sigma: Tensor, condition: Tensor, parts: TransitionParts) -> Tensor:
    """Estimate of the state from x (B, S) at sigma (B,) or (1,), nothing being known of the rest; velocities read 0."""
    s = sigma[:, None]
    total = torch.sqrt(s**2 + 1)
    levels = torch.stack([torch.log(sigma), torch.full_like(sigma, math.log(UNKNOWN))], dim=1) / 4
    output = network(x / total * parts.positions, levels, condition)
    return (x / total**2 + s / total * output.float()) * parts.positions


def denoise_rest(
    network: Network, x: Tensor, state_sigma: Tensor, sigma: Tensor, condition: Tensor, parts: TransitionParts
) -> Tensor:
    """Estimate of the transition from x (B, D), its state's positions at `state_sigma`, the rest at `sigma`.

    Where sigma is `UNKNOWN` the rest of x is not read. The state is given back as it came.
    """
    s = torch.where(parts.state, state_sigma[:, None], sigma[:, None])
    known = parts.state | (sigma < UNKNOWN)[:, None]
    total = torch.sqrt(s**2 + 1)
    levels = torch.stack([torch.log(state_sigma), torch.log(sigma)], dim=-1) / 4
    given = torch.where(known, x, 0.0)
    output = network(given / total, levels, condition)
    return torch.where(parts.state, x, given / total**2 + s / total * output.float())


@dataclass(frozen=True, eq=False)
class StateFirstLoss:
    """EDM's loss of the state in the first half of y (B, D), of the rest given the state in the second; their sum.

    ln sigma ~ N(P_mean, P_std^2) for the state alone, N(*condition_noise) where it is given; of the rest nothing is
    known in `unknown_share` of its rows, and ln sigma ~ N(0, 2^2) in the others. `dim_weights` (D,) weigh dimensions.
    `shard` (rank, world size): see `edm.EDMLoss`.
    """

    parts: TransitionParts
    P_mean: float = -1.2
    P_std: float = 1.2
    condition_noise: tuple[float, float] = (-2.0, 1.0)
    unknown_share: float = 0.5
    dim_weights: Tensor | None = None
    shard: tuple[int, int] = (0, 1)

    def __call__(self, network: Network, y: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        """() the loss of y (B, D) in the tasks `condition` (B, 16)."""
        rank, world_size = self.shard
        count = len(y) * world_size

        def drawn(*shape: int) -> Tensor:
            return torch.randn((count, *shape), generator=generator, device=y.device)[rank::world_size]

        noise, level, rest_level = drawn(y.shape[1]), drawn(), drawn()
        unknown = torch.rand(count, generator=generator, device=y.device)[rank::world_size] < self.unknown_share
        weights = torch.ones_like(y[0]) if self.dim_weights is None else self.dim_weights

        half = len(y) // 2
        first, second = slice(0, half), slice(half, None)
        sigma = torch.exp(self.P_mean + self.P_std * level[first])
        parts = self.parts
        s, d = sigma[:, None], parts.state_dim
        x = y[first, :d] + s * noise[first, :d]
        error = denoise_state(network, x, sigma, condition[first], parts) - y[first, :d]
        state_weights = weights[:d] * parts.positions
        state_loss = ((s**2 + 1) / s**2 * error.square() * (state_weights / state_weights.sum())).sum(dim=1).mean()

        mean, std = self.condition_noise
        state_sigma = torch.exp(mean + std * level[second])
        sigma = torch.exp(2.0 * rest_level[second]).clamp(max=UNKNOWN)
        sigma = torch.where(unknown[second], UNKNOWN, sigma)
        s = torch.where(parts.state, state_sigma[:, None], sigma[:, None])
        x = y[second] + s * noise[second]
        error = denoise_rest(network, x, state_sigma, sigma, condition[second], parts) - y[second]
        r, rest_weights = sigma[:, None], weights * parts.rest
        rest_loss = ((r**2 + 1) / r**2 * error.square() * (rest_weights / rest_weights.sum())).sum(dim=1).mean()
        return state_loss + rest_loss


def rest_given_state(
    network: Network, states: Tensor, condition: Tensor, parts: TransitionParts, state_noise: float
) -> Tensor:
    """(B, D) E[transition | state], one evaluation, of normalised states (B, S) whose velocities are not read.

    The network is told that the state has noise of the level `state_noise`, which it has not: the higher, the smoother
    is what it expects as a function of the state.
    """
    x = states.new_zeros((len(states), len(parts.state)))
    x[:, : parts.state_dim] = states
    level, unknown = states.new_full((1,), state_noise), states.new_full((1,), UNKNOWN)
    return denoise_rest(network, x, level, unknown, condition, parts)
