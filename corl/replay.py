"""A fixed set of transitions on the device, sampled by index."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from corl.batch import Batch
from corl.config import PolicyConfig
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.transitions import Transitions, canonical_quaternions

STATE_STD_OFFSET = 1e-3


def mean_and_std(states: np.ndarray, layout: FactoredLayout, *, hide_velocities: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of states (N, 77), each (77,) float64; an infinite deviation makes a hidden velocity read 0."""
    mean, std = states.mean(axis=0, dtype=np.float64), states.std(axis=0, dtype=np.float64)
    if hide_velocities:
        for part in layout.velocities:
            std[part] = np.inf
    return mean, std


class ReplayData:
    """Normalised transitions in one tensor (N, 2S+A+2), so that a batch is a single gather.

    States are normalised once, by mean and population standard deviation (+ 1e-3) of the set's observations. Time-outs
    count as ends with `timeouts_as_terminals`, as in ICDG. `canonical`: relative quaternions get one sign. With
    `hide_velocities` these read 0 for the learner and for every policy that it makes: a demonstrator's velocity echoes
    its last action, and a clone that sees it learns to go on as before instead of where to go (the copycat problem;
    de Haan et al. 2019, "Causal confusion in imitation learning"). `normalisation`, a mean and a deviation, replaces
    the set's own.
    """

    def __init__(
        self,
        transitions: Transitions,
        layout: FactoredLayout,
        device: torch.device,
        *,
        hide_velocities: bool = False,
        canonical: bool = True,
        timeouts_as_terminals: bool,
        normalisation: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.canonical = canonical
        matrix = transitions.to_matrix(layout, timeouts_as_terminals=timeouts_as_terminals)
        if canonical:
            for part in (layout.state, layout.next_state):
                matrix[:, part] = canonical_quaternions(matrix[:, part], layout)
        if normalisation is None:
            mean, std = mean_and_std(matrix[:, layout.state], layout, hide_velocities=hide_velocities)
            normalisation = mean.astype(np.float32), (std + STATE_STD_OFFSET).astype(np.float32)
        self.mean, self.std = normalisation
        for part in (layout.state, layout.next_state):
            matrix[:, part] = (matrix[:, part] - self.mean) / self.std
        self._matrix = torch.from_numpy(matrix).to(device)
        self._layout = layout

    @classmethod
    def of(
        cls, transitions: Transitions, config: PolicyConfig, layout: FactoredLayout, device: torch.device
    ) -> ReplayData:
        """As the configuration says."""
        return cls(
            transitions,
            layout,
            device,
            hide_velocities=config.hide_velocities,
            canonical=config.canonical_quaternions,
            timeouts_as_terminals=config.timeouts_as_terminals,
        )

    def __len__(self) -> int:
        return len(self._matrix)

    def batch(self, indices: Tensor) -> Batch:
        """indices (...,) to a batch of the same leading dimensions."""
        return self.cut(self.rows(indices))

    def rows(self, indices: Tensor) -> Tensor:
        """(..., 2S+A+2)"""
        return self._matrix[indices]

    def cut(self, rows: Tensor) -> Batch:
        layout = self._layout
        return Batch(
            rows[..., layout.state],
            rows[..., layout.action],
            rows[..., layout.reward],
            rows[..., layout.next_state],
            rows[..., layout.terminal],
        )
