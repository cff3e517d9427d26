"""A generator and the tasks to look into it with, from its checkpoint: what the commands that look inside share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffusion.attention import SIGMAS
from diffusion.model import DiffusionModel
from diffusion.quality import load_marginals
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.task import AXES, Task
from pipeline.report.figures import save_figure
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

    def open(self) -> tuple[DiffusionModel, dict[str, np.ndarray]]:
        """The generator, and the condition of every task by name; see `conditions_of`."""
        return load_generator(self.checkpoint, self.device), conditions_of(self.checkpoint, self.tasks)

    def save(self, figures: Mapping[str, Figure]) -> None:
        """Each as `<out>/<name>.png` and `.pdf`."""
        for name, figure in figures.items():
            save_figure(figure, self.out / name, ("png", "pdf"))


def load_generator(checkpoint: Path, device: str = "auto") -> DiffusionModel:
    return DiffusionModel.load(checkpoint, COMPOSUITE, pick_device(device))


def conditions_of(checkpoint: Path, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Task name -> condition (16,): the named tasks, by default those that trained the generator.

    Raises `ConfigError` where there are no names and nothing beside the checkpoint tells the tasks.
    """
    if tasks:
        return {name: Task.parse(name).one_hot for name in tasks}
    marginals = load_marginals(marginals_file(checkpoint), COMPOSUITE)
    if marginals is None:
        raise ConfigError(f"{checkpoint}: no {marginals_file(checkpoint).name} beside it tells its tasks; name --tasks")
    return {_task_of(condition).name: condition for condition in marginals.conditions}


def _task_of(condition: np.ndarray) -> Task:
    parts = COMPOSUITE.condition_slices
    return Task(**{axis: elements[int(condition[parts[axis]].argmax())] for axis, elements in AXES.items()})
