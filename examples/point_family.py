"""A task family of one's own in the loop, start to end in a minute: a point on a windy plane has to reach a place.

Two bodies x three places x three winds make 18 tasks. Twelve give expert data; for the other six, which nobody
demonstrated, the generator makes data, and policies that saw nothing else are tried in the environment.

Example: python -m scripts.automated_iterative_diffusion_dits_iiwa --config examples/point_family.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from envs.family import Expert, TaskFamily
from offline_compositional_rl_datasets.layout import Factor, FactoredLayout
from offline_compositional_rl_datasets.splits import Split
from offline_compositional_rl_datasets.task import Task

# 1. The axes of the family and their elements.
SPEEDS = {"light": 0.2, "heavy": 0.1}  # greatest step
PLACES = {"west": (-0.7, 0.0), "east": (0.7, 0.0), "north": (0.0, 0.7)}
WINDS = {"calm": (0.0, 0.0), "breeze": (0.05, 0.0), "updraught": (0.0, 0.05)}  # push per step
AXES = {"body": tuple(SPEEDS), "place": tuple(PLACES), "wind": tuple(WINDS)}
REACHED = 0.1

# 2. The layout of a state, factor by factor: what ties the generator to a family.
LAYOUT = FactoredLayout(
    factors=(Factor("body", 2, "body"), Factor("place", 4, "place"), Factor("wind", 2, "wind")),
    action_dim=2,
    axes=tuple(AXES.items()),
    ids_after="wind",
)


@dataclass(frozen=True, order=True)
class PointTask(Task):
    """A body that has to reach a place in a wind, e.g. `light_west_calm`."""

    body: str
    place: str
    wind: str

    layout = LAYOUT


# 3. The environment; any simulator will do.
class PointEnv(gymnasium.Env):
    """State (8,): position, place, way to the place, wind. Action (2,) in [-1, 1]; reward exp(-distance)."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, task: PointTask) -> None:
        self.speed, self.place, self.wind = SPEEDS[task.body], np.array(PLACES[task.place]), np.array(WINDS[task.wind])
        self.position = np.zeros(2)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self.position, self.place, self.place - self.position, self.wind])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1, 1, 2)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = self.position + self.speed * np.clip(action, -1, 1) + self.wind
        distance = float(np.linalg.norm(self.place - self.position))
        return self._observe(), float(np.exp(-distance)), False, False, {"success": distance < REACHED}

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Optional: for grounding and the physics check."""
        self.position = np.array(state[:2], np.float64)
        return self._observe()


# 4. The family: everything that the loop asks for.
class PointFamily(TaskFamily[PointTask]):
    """Six tasks are held out, such that the others show every element."""

    name = "point"
    task_class = PointTask

    def make_env(self, task: PointTask, render_mode: str | None = None) -> gymnasium.Env:
        return PointEnv(task)

    def expert(self, task: PointTask, policy: Path | None = None) -> Expert:
        """Optional: records the training tasks; data of one's own are found in `data_path`."""
        wind, speed = np.array(WINDS[task.wind]), SPEEDS[task.body]
        return lambda states: np.clip((states[:, 4:6] - wind) / speed, -1, 1)

    def split(self, kind: str, seed: int, folder: Path | None = None) -> Split:
        """Optional: without it half of the tasks are held out, drawn from the seed."""
        if kind != "default":
            return super().split(kind, seed, folder)
        tasks = self.tasks()
        held_out = [tasks[i] for i in (1, 5, 6, 9, 13, 17)]
        return Split(tuple(task for task in tasks if task not in held_out), tuple(held_out))


FAMILY = PointFamily()
