"""Standardisation of transition vectors, fitted on the training pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import ConfigError

BLOCK_ROWS = 65_536
"""Rows of a pool that are worked on at a time: copies of a whole one would not fit in memory beside it."""


@dataclass(frozen=True)
class Normalizer:
    """x -> (x - mean) / std per dimension, after s' has become s' - s where `delta_next`; mean, std (164,)."""

    mean: Tensor
    std: Tensor
    layout: FactoredLayout
    delta_next: bool

    @classmethod
    def fit(
        cls,
        matrix: Tensor,
        layout: FactoredLayout,
        *,
        delta_next: bool = False,
        std_offset: float = 1e-5,
        follow_scale: float = 1.0,
        standardise_terminal: bool = False,
    ) -> Normalizer:
        """Mean and unbiased standard deviation + `std_offset` over matrix (N, 164); the terminal, 0 or 1, may be left.

        All but the positions of the state is then scaled by `follow_scale`. Raises `ConfigError` where a dimension does
        not vary and `std_offset` leaves it no size.
        """
        total, squares = (torch.zeros(layout.transition_dim, dtype=torch.float64) for _ in range(2))

        def blocks() -> Iterator[Tensor]:
            for block in matrix.split(BLOCK_ROWS):
                yield (_to_delta(block, layout) if delta_next else block).double()

        for block in blocks():
            total += block.sum(dim=0)
        mean = total / len(matrix)
        for block in blocks():
            squares += (block - mean).square_().sum(dim=0)
        std = (squares / max(1, len(matrix) - 1)).sqrt() + std_offset
        if not standardise_terminal:
            mean[layout.terminal], std[layout.terminal] = 0.0, 1.0
        if (std.float() == 0).any():
            raise ConfigError(f"std_offset {std_offset}: expected more, the pool is constant in a dimension")
        return cls(mean.float(), std.float() / scales(layout, follow_scale), layout, delta_next)

    def normalize(self, matrix: Tensor) -> Tensor:
        shifted = _to_delta(matrix, self.layout) if self.delta_next else matrix
        return (shifted - self.mean) / self.std

    def normalize_to(self, matrix: Tensor, device: torch.device) -> Tensor:
        """The same on a device, block by block: a large matrix needs its own size there, and little more here."""
        normalized = torch.empty_like(matrix, device=device)
        for block, given in zip(normalized.split(BLOCK_ROWS), matrix.split(BLOCK_ROWS), strict=True):
            block.copy_(self.normalize(given))
        return normalized

    def denormalize(self, x: Tensor) -> Tensor:
        matrix = x * self.std + self.mean
        if self.delta_next:
            matrix[:, self.layout.next_state] += matrix[:, self.layout.state]
        return matrix

    def to(self, device: torch.device) -> Normalizer:
        return Normalizer(self.mean.to(device), self.std.to(device), self.layout, self.delta_next)


def scales(layout: FactoredLayout, follow_scale: float) -> Tensor:
    """(164,) size of each dimension after normalisation: 1 for the positions of the state, else `follow_scale`."""
    scale = torch.ones(layout.transition_dim)
    for part in (*layout.velocities, slice(layout.state.stop, None)):
        scale[part] = follow_scale
    return scale


def _to_delta(matrix: Tensor, layout: FactoredLayout) -> Tensor:
    shifted = matrix.clone()
    shifted[:, layout.next_state] -= matrix[:, layout.state]
    return shifted
