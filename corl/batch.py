"""What a learner learns from in one step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """states, next_states (B, S) normalised; actions (B, A); rewards, dones (B,)."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    next_states: Tensor
    dones: Tensor
