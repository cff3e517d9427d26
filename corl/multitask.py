"""Transitions of many tasks as one agent sees them, observations with ids, and the agent at one of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corl.batch import Batch
from corl.evaluate import finite
from corl.multitask_config import MultitaskConfig
from corl.replay import STATE_STD_OFFSET, mean_and_std
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions, canonical_quaternions


@dataclass(frozen=True)
class Normalisation:
    """Of states without ids: mean, std (77,); `std` infinite hides an entry. `canonical`: quaternions of one sign."""

    mean: np.ndarray
    std: np.ndarray
    canonical: bool

    @classmethod
    def of(cls, states: np.ndarray, config: MultitaskConfig, layout: FactoredLayout) -> Normalisation:
        """Over states (N, 77), which are canonical already where the configuration wants it."""
        if not config.normalise:
            return cls(
                np.zeros(layout.state_dim, np.float32),
                np.ones(layout.state_dim, np.float32),
                config.canonical_quaternions,
            )
        mean, std = mean_and_std(states, layout, hide_velocities=config.hide_velocities)
        std = (std + STATE_STD_OFFSET).astype(np.float32)
        return cls(mean.astype(np.float32), std, config.canonical_quaternions)

    def observation(self, states: np.ndarray, task: Task, layout: FactoredLayout) -> np.ndarray:
        """Raw states (B, 77) to the agent's observations (B, 93)."""
        states = np.asarray(states, np.float32)
        if self.canonical:
            states = canonical_quaternions(states, layout)
        return layout.join_ids((states - self.mean) / self.std, task.one_hot)


class TaskData:
    """Transitions of many tasks on the device: rows without ids (a sixth less memory), the ids joined to each batch."""

    def __init__(
        self, parts: Sequence[Transitions], config: MultitaskConfig, layout: FactoredLayout, device: torch.device
    ) -> None:
        matrix = np.concatenate([part.to_matrix(layout, timeouts_as_terminals=False) for part in parts])
        both = (layout.state, layout.next_state)
        if config.canonical_quaternions:
            for part in both:
                matrix[:, part] = canonical_quaternions(matrix[:, part], layout)
        self.normalisation = Normalisation.of(matrix[:, layout.state], config, layout)
        if config.normalise:
            for part in both:
                matrix[:, part] = (matrix[:, part] - self.normalisation.mean) / self.normalisation.std
        self._matrix = torch.from_numpy(matrix).to(device)
        numbers = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
        self._task = torch.from_numpy(numbers).to(device)
        self._ids = torch.from_numpy(np.stack([part.task.one_hot for part in parts])).to(device)
        self._layout = layout

    def __len__(self) -> int:
        return len(self._matrix)

    def batch(self, indices: Tensor) -> Batch:
        """indices (B,) to a batch of observations with ids."""
        layout, rows, ids = self._layout, self._matrix[indices], self._ids[self._task[indices]]
        return Batch(
            self._join(rows[:, layout.state], ids),
            rows[:, layout.action],
            rows[:, layout.reward],
            self._join(rows[:, layout.next_state], ids),
            rows[:, layout.terminal],
        )

    def _join(self, states: Tensor, ids: Tensor) -> Tensor:
        cut = self._layout.ids_slice.start
        return torch.cat([states[:, :cut], ids, states[:, cut:]], dim=1)


class TaskPolicy:
    """A multitask actor at one task: raw states (B, 77) to actions (B, 8)."""

    def __init__(
        self, actor: nn.Module, normalisation: Normalisation, task: Task, layout: FactoredLayout, device: Any = "cpu"
    ) -> None:
        self.actor, self.normalisation, self.task, self.layout = actor, normalisation, task, layout
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, states: np.ndarray) -> np.ndarray:
        observations = self.normalisation.observation(states, self.task, self.layout)
        actions = self.actor(torch.from_numpy(observations).to(self.device)).cpu().numpy()
        return finite(actions, f"the multitask agent in {self.task}")
