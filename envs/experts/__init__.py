"""Experts: scripted ones that need no download, and the policies published with CompoSuite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.experts.published import PublishedExpert, best_policy
from envs.experts.scripted import ScriptedExpert
from offline_compositional_rl_datasets.composuite import CompoSuiteTask

__all__ = ["PublishedExpert", "ScriptedExpert", "best_policy", "expert_for"]


def expert_for(task: CompoSuiteTask, policy: Path | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """The expert of a task: a callable from states (B, 77) to actions (B, 8) in [-1, 1].

    It is the scripted one, or a published policy where its file is given. Raises `DataError` for a file that is none.
    """
    return ScriptedExpert(task) if policy is None else PublishedExpert(policy, task)
