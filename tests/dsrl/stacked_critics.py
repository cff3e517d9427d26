"""Critics side by side as one batch of products, against the single ones."""

from __future__ import annotations

import torch
from torch import Tensor

from dsrl.critics import stacked


def expect_stacked_like(critic: torch.nn.Module, plain: Tensor, states: Tensor, actions: Tensor) -> None:
    """Values and gradients of the stacked critics are those of `plain` (K, B), which the single ones gave."""
    plain.square().sum().backward()
    expected = [value.grad.clone() for value in critic.parameters()]
    critic.zero_grad()
    fast = stacked(critic.q_networks)(states, actions)
    fast.square().sum().backward()
    torch.testing.assert_close(fast, plain)
    for value, grad in zip(critic.parameters(), expected, strict=True):
        torch.testing.assert_close(value.grad, grad)
