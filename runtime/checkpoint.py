"""Torch checkpoints as files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime.atomic import atomic_path
from runtime.errors import DataError


def save_torch(value: Any, path: Path) -> None:
    """Write `value` as `torch.save` does, but by a plain write: a full disk is an `OSError`, not a fault of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


def replace_torch(value: Any, path: Path) -> None:
    """Write `value` as `save_torch` does to a file that is always a whole one: the old or the new."""
    with atomic_path(path) as temporary:
        save_torch(value, temporary)


def on_cpu(value: Any) -> Any:
    """A copy on the CPU of all tensors in a nest of mappings and lists."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [on_cpu(item) for item in value]
    return value


class BackgroundSaver:
    """Writes checkpoints to one path while the computation within `with` goes on; the file is always a whole one.

    What a write meets (a full disk) is raised by the next `save` or `wait`, or at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    @property
    def busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def save(self, value: Any) -> None:
        """Copy `value` as it is now and begin to write it, after what is being written still."""
        self.wait()
        self._writing = self._pool.submit(replace_torch, on_cpu(value), self.path)

    def wait(self) -> None:
        """Until nothing is being written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """The state dict `key` of a checkpoint as arrays. Raises `DataError` where the file is missing or holds none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)[key]
        return {name: value.numpy() for name, value in state.items()}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: cannot be read as a checkpoint with a state dict {key!r} ({error})") from error
