"""Torch checkpoints as files."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import DataError


def save_torch(value: Any, path: Path) -> None:
    """Write `value` as `torch.save` does, but by a plain write: a full disk is an `OSError`, not a fault of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """The state dict `key` of a checkpoint as arrays. Raises `DataError` where the file is missing or holds none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)[key]
        return {name: value.numpy() for name, value in state.items()}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: cannot be read as a checkpoint with a state dict {key!r} ({error})") from error
