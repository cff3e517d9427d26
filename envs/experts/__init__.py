"""Experts that need no download: scripted, memoryless and smooth."""

from __future__ import annotations

from envs.experts.grasps import GRASPS
from envs.experts.scripted import ScriptedExpert
from envs.experts.targets import AIMS
from offline_compositional_rl_datasets.task import Task


def expert_for(task: Task) -> ScriptedExpert:
    """The expert of a task: a callable from observations (B, 77) to actions (B, 8) in [-1, 1].

    Raises `TaskError` for an object or objective that no expert is written for.
    """
    return ScriptedExpert(task)


def has_expert(task: Task) -> bool:
    """Whether `expert_for(task)` gives an expert."""
    return task.object in GRASPS and task.objective in AIMS
