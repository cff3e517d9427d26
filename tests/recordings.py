"""Recordings of nothing in particular, in the places where expert data lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert


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
