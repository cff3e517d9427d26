"""Recordings and transitions of nothing in particular, and the places where expert data lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.transitions import Transitions

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


def random_transitions(rows: int = 200, task: CompoSuiteTask = TASK, *, seed: int = 0) -> Transitions:
    """Transitions whose actions a policy can learn, since they follow from the states.

    A tenth ends an episode, and every fiftieth is the last one before a time-out.
    """
    random = np.random.default_rng(seed)
    states = random.normal(size=(rows, COMPOSUITE.state_dim)).astype(np.float32)
    return Transitions(
        states=states,
        actions=np.tanh(states[:, 50 : 50 + COMPOSUITE.action_dim]),
        rewards=random.uniform(size=rows).astype(np.float32),
        next_states=states + 0.1 * random.normal(size=states.shape).astype(np.float32),
        terminals=random.random(rows) < 0.1,
        timeouts=np.arange(rows) % 50 == 49,
        task=task,
    )


def write_random_recordings(root: Path, tasks: Iterable[CompoSuiteTask]) -> None:
    """Two episodes of 20 steps per task below the data folder `root`."""
    random = np.random.default_rng(0)
    for task in tasks:
        episodes = [
            Episode(
                random.normal(size=(20, 77)).astype(np.float32),
                random.uniform(-1, 1, (20, 8)).astype(np.float32),
                random.random(20, np.float32),
                np.zeros(20, np.float32),
                False,
            )
            for _ in range(2)
        ]
        write_expert(task_file(root, "expert", task), episodes, task)
