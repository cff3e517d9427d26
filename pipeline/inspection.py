"""A generator and the tasks to look into it with, from its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion.model import DiffusionModel
from diffusion.quality import load_marginals
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.task import AXES, Task
from pipeline.places import marginals_file
from runtime.device import pick_device
from runtime.errors import ConfigError


def load_generator(checkpoint: Path, device: str = "auto") -> DiffusionModel:
    return DiffusionModel.load(checkpoint, COMPOSUITE, pick_device(device))


def conditions_of(checkpoint: Path, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Task name -> condition (16,): the named tasks, by default those that trained the generator.

    Raises `ConfigError` where there are no names and nothing beside the checkpoint tells the tasks.
    """
    if tasks:
        return {name: Task.parse(name).one_hot for name in tasks}
    marginals = load_marginals(marginals_file(checkpoint))
    if marginals is None:
        raise ConfigError(f"{checkpoint}: no {marginals_file(checkpoint).name} beside it tells its tasks; name --tasks")
    return {_task_of(condition).name: condition for condition in marginals.conditions}


def _task_of(condition: np.ndarray) -> Task:
    parts = COMPOSUITE.condition_slices
    return Task(**{axis: elements[int(condition[parts[axis]].argmax())] for axis, elements in AXES.items()})
