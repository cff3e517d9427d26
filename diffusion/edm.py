"""EDM preconditioning and loss (Karras et al. 2022, Table 1 and Eq. 8)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# F(x, c_noise, condition): the raw network on scaled input.
Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def denoise(network: Network, x: Tensor, sigma: Tensor, condition: Tensor, sigma_data: float | Tensor = 1.0) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x, c_noise) for x (B, d), sigma (B,) or (1,), condition (B or 1, 16).

    `sigma_data` is the data's standard deviation, one for all dimensions or (d,): each dimension then has its own
    preconditioning, and F sees and gives unit variance whatever the dimension's scale. The network may compute in
    bfloat16; scaling and sum are float32.
    """
    s = sigma[:, None]
    total = torch.sqrt(s**2 + sigma_data**2)
    c_skip = (sigma_data / total) ** 2
    c_out = s * sigma_data / total
    output = network(x / total, torch.log(sigma) / 4, condition)
    return c_skip * x + c_out * output.float()


def loss(
    network: Network,
    y: Tensor,
    condition: Tensor,
    generator: torch.Generator,
    *,
    dim_weights: Tensor | None = None,
    P_mean: float = -1.2,
    P_std: float = 1.2,
    sigma_data: float | Tensor = 1.0,
    shard: tuple[int, int] = (0, 1),
) -> Tensor:
    """Mean over batch and dimensions of lambda(sigma) (D(y + n; sigma) - y)^2, ln sigma ~ N(P_mean, P_std^2).

    `dim_weights` (d,) with mean 1 weigh the dimensions. With `shard` (rank, world size) y holds those rows of a
    batch, every world-size-th, and is given those rows of the whole batch's noise.
    """
    rank, world_size = shard
    count = len(y) * world_size
    sigma = torch.exp(P_mean + P_std * torch.randn(count, generator=generator, device=y.device))[rank::world_size]
    noise = torch.randn((count, y.shape[1]), generator=generator, device=y.device)[rank::world_size] * sigma[:, None]
    s = sigma[:, None]
    weight = (s**2 + sigma_data**2) / (s * sigma_data) ** 2
    error = weight * (denoise(network, y + noise, sigma, condition, sigma_data) - y).square()
    return (error if dim_weights is None else error * dim_weights).mean()
