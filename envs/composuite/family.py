"""CompoSuite as a family of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium

from envs.composuite.env import CompoSuiteEnv
from envs.composuite.objectives import OBJECTIVES
from envs.composuite.simulation import ACTION_DIM
from envs.composuite.state_setter import CompoSuiteStateSetter
from envs.disturbance import Disturbance
from envs.family import Expert, TaskFamily
from envs.task_env import CONTROL_FREQUENCY
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask, all_tasks, curriculum_axes
from offline_compositional_rl_datasets.composuite_splits import PUBLISHED
from offline_compositional_rl_datasets.splits import Split, load_split

_HEIGHT = COMPOSUITE.factor_slices["object"].start + 2
_HELD = {"PickPlace": 2.5, "Push": 2.5}  # times as long a run lingers where the object is held at its goal in the open


class CompoSuite(TaskFamily[CompoSuiteTask]):
    """Four robots, objects, obstacles and objectives, with the orders and names of the published programs."""

    name = "composuite"
    task_class = CompoSuiteTask
    splits_folder = PUBLISHED
    control_frequency = CONTROL_FREQUENCY
    grid_axes = ("object", "obstacle", "objective", "robot")
    table_columns = ("robot", "object", "obstacle", "subtask")

    def tasks(self) -> list[CompoSuiteTask]:
        return list(all_tasks())

    def split(self, kind: str, seed: int, folder: Path | None = None) -> Split:
        """Of a file alone: the seeded splits of the data sets' authors are `composuite_splits`."""
        return load_split(self.task_class, folder or self.splits_folder, kind, seed)

    def curriculum_axes(self) -> dict[str, tuple[str, ...]]:
        return curriculum_axes()

    def make_env(self, task: CompoSuiteTask, render_mode: str | None = None) -> gymnasium.Env:
        return CompoSuiteEnv(task, render_mode=render_mode)

    def environment(self, task: CompoSuiteTask, **options: Any) -> gymnasium.Env:
        """Options are those of `CompoSuiteEnv`."""
        return CompoSuiteEnv(task, **options)

    def drawn_environment(
        self,
        task: CompoSuiteTask,
        *,
        horizon: int | None = None,
        size: tuple[int, int] = (256, 256),
        camera: str = "film",
    ) -> gymnasium.Env:
        return CompoSuiteEnv(task, horizon=horizon, camera=camera, width=size[0], height=size[1])

    def expert(self, task: CompoSuiteTask, policy: Path | None = None) -> Expert:
        """The scripted expert, or a published policy where its file is given."""
        from envs.experts import expert_for

        return expert_for(task, policy)

    def disturbance(self, task: CompoSuiteTask) -> Disturbance:
        """The gripper is left to the expert; where it grips the object may slip."""
        ceiling, linger = OBJECTIVES[task.objective].ceiling, _HELD.get(task.objective, 1.0)
        return Disturbance(ACTION_DIM, grip=(ACTION_DIM - 1,), height=_HEIGHT, ceiling=ceiling, linger=linger)

    def state_setter(self, task: CompoSuiteTask) -> CompoSuiteStateSetter:
        return CompoSuiteStateSetter(task)


FAMILY = CompoSuite()
