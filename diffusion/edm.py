"""EDM preconditioning and loss (Karras et al. 2022, Table 1 and Eq. 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# F(x, c_noise, condition): the raw network on scaled input.
Network = Callable[[Tensor, Tensor, Tensor], Tensor]

# L(network, y, condition, generator): () the loss of normalised transitions y (B, d), noised by the generator.
Loss = Callable[[Network, Tensor, Tensor, torch.Generator], Tensor]


def denoise(network: Network, x: Tensor, sigma: Tensor, condition: Tensor, sigma_data: float | Tensor = 1.0) -> Tensor:
    """D(x; sigma) = c_skip x + c_out F(c_in x, c_noise) for x (B, d), sigma (B,) or (1,), condition (B or 1, 16).

    `sigma_data` is the data's standard deviation, one for all dimensions or (d,): each dimension then has its own
    preconditioning, and F sees and gives unit variance whatever the dimension's scale. The network may compute in
    bfloat16; scaling and sum are float32.
    """
    s = sigma[:, None]
    total = torch.sqrt(s**2 + sigma_data**2)  # (B or 1, 1 or d), as both coefficients
    c_skip = (sigma_data / total) ** 2
    c_out = s * sigma_data / total
    output = network(x / total, torch.log(sigma) / 4, condition)
    return c_skip * x + c_out * output.float()


@dataclass(frozen=True, eq=False)
class EDMLoss:
    """Mean over batch and dimensions of lambda(sigma) (D(y + n; sigma) - y)^2, ln sigma ~ N(P_mean, P_std^2).

    `sigma_data`: see `denoise`. `dim_weights` (d,) with mean 1 weigh the dimensions. With `shard` (rank, world size) y
    holds those rows of a batch, every world-size-th, and is given those rows of the whole batch's noise.
    """

    P_mean: float = -1.2
    P_std: float = 1.2
    sigma_data: float | Tensor = 1.0
    dim_weights: Tensor | None = None
    shard: tuple[int, int] = (0, 1)

    def __call__(self, network: Network, y: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        """() the loss of y (B, d) in the tasks `condition` (B or 1, 16)."""
        rank, world_size = self.shard
        count = len(y) * world_size
        level = torch.randn(count, generator=generator, device=y.device)[rank::world_size]
        noise = torch.randn((count, y.shape[1]), generator=generator, device=y.device)[rank::world_size]
        sigma = torch.exp(self.P_mean + self.P_std * level)  # (B,)
        s = sigma[:, None]
        weight = (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2  # (B, 1 or d)
        error = weight * (denoise(network, y + noise * s, sigma, condition, self.sigma_data) - y).square()
        return (error if self.dim_weights is None else error * self.dim_weights).mean()
