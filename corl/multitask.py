"""Transitions of many tasks as one agent sees them, observations with ids, and the agent at one of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corl.batch import Batch
from corl.evaluate import finite
from corl.multitask_config import MultitaskConfig
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions


def transform_of(parts: Sequence[Transitions], config: MultitaskConfig, layout: FactoredLayout) -> StateTransform:
    """What the agent sees of states: scaled by those of all tasks, or as they are."""
    options = {"canonical_quaternions": config.canonical_quaternions, "task_ids": True}
    if not config.normalise:
        return StateTransform.unscaled(layout, **options)
    states = np.concatenate([part.states for part in parts])
    return StateTransform.fit(states, layout, hide_velocities=config.hide_velocities, **options)


class TaskData:
    """Transitions of many tasks on the device: rows without ids (a sixth less memory), the ids joined to each batch."""

    def __init__(
        self, parts: Sequence[Transitions], config: MultitaskConfig, layout: FactoredLayout, device: torch.device
    ) -> None:
        matrix = np.concatenate([part.to_matrix(layout, timeouts_as_terminals=False) for part in parts])
        self.transform = transform_of(parts, config, layout)
        self.transform.apply_to_transitions(matrix)
        self._matrix = torch.from_numpy(matrix).to(device)
        numbers = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
        self._task = torch.from_numpy(numbers).to(device)
        self._ids = torch.from_numpy(np.stack([part.only_task.one_hot for part in parts])).to(device)
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

    def __init__(self, actor: nn.Module, transform: StateTransform, task: Task, device: Any = "cpu") -> None:
        self.actor, self.transform, self.task, self.device = actor, transform, task, torch.device(device)

    @torch.no_grad()
    def __call__(self, states: np.ndarray) -> np.ndarray:
        observations = self.transform.apply(states, self.task)
        actions = self.actor(torch.from_numpy(observations).to(self.device)).cpu().numpy()
        return finite(actions, f"the multitask agent in {self.task}")
