"""A generator and the tasks to look into it with, from its checkpoint: what the commands that look inside share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion.attention import SIGMAS
from diffusion.model import DiffusionModel
from diffusion.quality import load_marginals
from envs.family import TaskFamily, find_family
from offline_compositional_rl_datasets.task import Task
from pipeline.report.style import save_figure
from pipeline.stages.paths import marginals_file
from runtime.device import pick_device
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Inspection:
    """Flags of a command that looks into a generator."""

    checkpoint: Path
    """of a semantic transformer (dit, DiT1D-...)"""
    out: Path = Path("figures")
    """folder to write to"""
    tasks: tuple[str, ...] = ()
    """names such as IIWA_Box_None_Push; default: the tasks that trained the generator"""
    sigmas: tuple[float, ...] = SIGMAS
    """noise levels in standard deviations of the data"""
    seed: int = 0
    """of the noise"""
    device: str = "auto"
    """auto, cpu or cuda"""
    family: str = "composuite"
    """of the tasks, such as my_package.my_module:FAMILY"""

    def open(self) -> tuple[DiffusionModel, dict[str, np.ndarray]]:
        """The generator, and the condition of every task by name; see `conditions_of`."""
        family = find_family(self.family)
        model = DiffusionModel.load(self.checkpoint, family.layout, pick_device(self.device))
        return model, conditions_of(family, self.checkpoint, self.tasks)

    def save(self, figures: Mapping[str, Figure]) -> None:
        """Each as `<out>/<name>.png` and `.pdf`."""
        for name, figure in figures.items():
            save_figure(figure, self.out / name, ("png", "pdf"))


def conditions_of(family: TaskFamily[Any], checkpoint: Path, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Task name -> condition (C,): the named tasks, by default those that trained the generator.

    Raises `ConfigError` where there are no names and nothing beside the checkpoint tells the tasks.
    """
    if tasks:
        return {name: family.parse(name).one_hot for name in tasks}
    marginals = load_marginals(marginals_file(checkpoint), family.layout)
    if marginals is None:
        raise ConfigError(f"{checkpoint}: no {marginals_file(checkpoint).name} beside it tells its tasks; name --tasks")
    return {_task_of(family, condition).name: condition for condition in marginals.conditions}


def _task_of(family: TaskFamily[Any], condition: np.ndarray) -> Task:
    parts, axes = family.layout.condition_slices, family.layout.axes
    task: Task = family.task_class(**{axis: elements[int(condition[parts[axis]].argmax())] for axis, elements in axes})
    return task
