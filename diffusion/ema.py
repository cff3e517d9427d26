"""Exponential moving average of a network's weights, with the warm-up of the published code's library."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

_COPY_UNTIL = 100
_POWER = 2 / 3


class EMA:
    """`model` follows the trained network; call `update(step)` after every optimiser step (steps count from 1)."""

    def __init__(self, network: nn.Module, *, decay: float, every: int) -> None:
        self.decay, self.every = decay, every
        self._source: list[Tensor] = list(network.parameters())
        self.model = copy.deepcopy(network).requires_grad_(False).eval()
        self._average: list[Tensor] = list(self.model.parameters())

    def rate(self, step: int) -> float:
        """A plain copy until step 100, then min(decay, 1 - (step - 100)^(-2/3))."""
        if step <= _COPY_UNTIL:
            return 0.0
        return min(self.decay, max(0.0, 1 - math.pow(step - _COPY_UNTIL, -_POWER)))

    @torch.no_grad()
    def update(self, step: int) -> None:
        if step % self.every == 0:
            torch._foreach_lerp_(self._average, self._source, 1 - self.rate(step))
