"""A fixed set of transitions on the device, sampled by index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corl.batch import Batch
from corl.config import PolicyConfig
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.device import expect_room


class ReplayData:
    """Transitions as a learner sees them, in one tensor (N, 2S+A+2), so that a batch is a single gather.

    `transform` is applied once to all states. Time-outs count as ends with `timeouts_as_terminals`, as in ICDG.
    """

    def __init__(
        self, transitions: Transitions, transform: StateTransform, device: torch.device, *, timeouts_as_terminals: bool
    ) -> None:
        self.transform = transform
        matrix = transitions.to_matrix(transform.layout, timeouts_as_terminals=timeouts_as_terminals)
        transform.apply_to_transitions(matrix)
        self._matrix = torch.from_numpy(matrix).to(device)  # (N, 2S+A+2) [s, a, r, s', done]
        self._joined, self._first = self._matrix, 0  # a tensor whose rows from `_first` on are these

    @classmethod
    def of(
        cls, transitions: Transitions, config: PolicyConfig, layout: FactoredLayout, device: torch.device
    ) -> ReplayData:
        """As the configuration says, with the transform that the set's own states give."""
        transform = config.transform(transitions.states, layout)
        return cls(transitions, transform, device, timeouts_as_terminals=config.timeouts_as_terminals)

    def __len__(self) -> int:
        return len(self._matrix)

    def batch(self, indices: Tensor) -> Batch:
        """indices (...,) to a batch of the same leading dimensions."""
        return self.cut(self.rows(indices))

    def rows(self, indices: Tensor) -> Tensor:
        """(..., 2S+A+2)"""
        return self._matrix[indices]

    def cut(self, rows: Tensor) -> Batch:
        layout = self.transform.layout
        return Batch(
            rows[..., layout.state],
            rows[..., layout.action],
            rows[..., layout.reward],
            rows[..., layout.next_state],
            rows[..., layout.terminal],
        )


def join(sets: Sequence[ReplayData], device: torch.device) -> tuple[Tensor, list[int]]:
    """The rows of all sets in one tensor (M, 2S+A+2) on the device, and the number of each set's first row in it.

    The sets are views of it from then on, and give up their own rows one after another: where they come from the host
    the device holds nothing twice. Sets that were joined there before are not copied again. All are of one width.
    Raises `ConfigError` where a GPU has not the room.
    """
    device = torch.empty(0, device=device).device  # with its number
    if len({id(data._joined) for data in sets}) > 1 or sets[0]._joined.device != device:
        distinct = list({id(data): data for data in sets}.values())
        rows, width = sum(map(len, distinct)), sets[0]._matrix.shape[1]
        expect_room(device, rows * width * sets[0]._matrix.element_size(), f"{len(distinct)} sets of {rows:,} rows")
        whole = torch.empty((rows, width), dtype=sets[0]._matrix.dtype, device=device)
        start = 0
        for data in distinct:
            part = whole[start : start + len(data)]
            part.copy_(data._matrix)
            data._matrix, data._joined, data._first = part, whole, start
            start += len(part)
    return sets[0]._joined, [data._first for data in sets]
