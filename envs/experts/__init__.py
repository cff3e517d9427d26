"""Experts that need no download: scripted, memoryless and smooth."""

from __future__ import annotations

from envs.experts.scripted import ScriptedExpert
from offline_compositional_rl_datasets.task import Task

__all__ = ["ScriptedExpert", "expert_for"]


def expert_for(task: Task) -> ScriptedExpert:
    """The expert of a task: a callable from observations (B, 77) to actions (B, 8) in [-1, 1]."""
    return ScriptedExpert(task)
