"""Generated transitions as `samples_0.npz`, with the keys of the published code."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import TERMINAL_THRESHOLD, Transitions, check_array
from runtime.atomic import commit_artifact
from runtime.errors import DataError

SAMPLES_FILE = "samples_0.npz"
_KEYS = ("observations", "actions", "rewards", "next_observations", "terminals")


def write_samples(path: Path, transitions: Transitions, info: Mapping[str, Any]) -> None:
    """Write transitions as an artifact: float32 arrays, terminals in {0, 1}."""
    transitions.validate(f"samples for {path}")
    arrays = {key: getattr(transitions, key).astype(np.float32, copy=False) for key in _KEYS}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    commit_artifact(path, write, {"rows": len(transitions), **info})


def read_samples(path: Path, task: Task | None, layout: FactoredLayout = COMPOSUITE) -> Transitions:
    """Raises `DataError` where the file is missing, truncated, of other dimensions or not finite."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            missing = [key for key in _KEYS if key not in archive.files]
            if missing:
                raise DataError(f"{path}: lacks {', '.join(missing)}, expected the keys {', '.join(_KEYS)}")
            arrays = {key: archive[key] for key in _KEYS}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such sample file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable npz file, perhaps truncated ({error})") from error
    flags = arrays.pop("terminals")
    check_array(flags, (len(arrays["observations"]),), f"{path}: terminals")
    terminals = flags > TERMINAL_THRESHOLD
    transitions = Transitions(**arrays, terminals=terminals, timeouts=np.zeros(len(terminals), dtype=bool), task=task)
    transitions.validate(str(path), layout)
    return transitions
