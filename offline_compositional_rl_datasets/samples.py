"""Generated transitions as `samples_0.npz`, with the keys of the published code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import TERMINAL_THRESHOLD, Transitions, check_array
from runtime.atomic import commit_artifact, verify
from runtime.npz import FLAGS, NUMBERS, read_npz

SAMPLES_FILE = "samples_0.npz"
_KINDS = dict.fromkeys(("observations", "actions", "rewards", "next_observations"), NUMBERS) | {"terminals": FLAGS}


def write_samples(path: Path, transitions: Transitions, layout: FactoredLayout, info: Mapping[str, Any]) -> None:
    """Write transitions of this layout as an artifact: float32 arrays, terminals in {0, 1}.

    Raises `DataError` for transitions of other dimensions and for values that are not finite.
    """
    transitions.validate(f"samples for {path}", layout)
    found = transitions.published()
    arrays: dict[str, Any] = {key: found[key].astype(np.float32, copy=False) for key in _KINDS}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    commit_artifact(path, write, {"rows": len(transitions), **info})


def read_samples(path: Path, task: Task | None, layout: FactoredLayout) -> Transitions:
    """Raises `DataError` where the file is missing, damaged, of other types or dimensions, or not finite."""
    verify(path)
    arrays = read_npz(path, _KINDS)
    flags = arrays.pop("terminals")
    check_array(flags, arrays["observations"].shape[:1], f"{path}: terminals")
    with np.errstate(over="ignore"):  # what is too large for float32 is not finite and refused below
        arrays = {key: array.astype(np.float32, copy=False) for key, array in arrays.items()}
    arrays |= {"terminals": flags > TERMINAL_THRESHOLD, "timeouts": np.zeros(flags.shape, dtype=bool)}
    transitions = Transitions.from_published(arrays, task)
    transitions.validate(str(path), layout)
    return transitions
