"""What a killed or interrupted generation had finished, so that its successor goes on from there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch

from runtime.checkpoint import load_checkpoint, replace_torch, restore_random
from runtime.errors import DataError


class PartialSamples:
    """The first rows of a matrix of samples in a file, and beside it how many count and the random state after them.

    `key` names what is generated: rows of something else are not taken up. Rows are appended at most every `seconds`.
    """

    def __init__(self, path: Path, key: str, *, seconds: float = 25.0) -> None:
        self.path, self.key, self.seconds = path, key, seconds
        self.state_file = path.with_name(path.name + ".pt")
        self.rows = 0
        self._saved = time.monotonic()

    def restore(self, samples: np.ndarray, generator: torch.Generator) -> int:
        """Fill the first rows of `samples` (N, D) float32 and set the generator; gives how many rows there were."""
        try:
            state = load_checkpoint(self.state_file) if self.state_file.exists() else {}
            count = state["rows"] if state.get("key") == self.key else 0
            found = np.fromfile(self.path, np.float32, count * samples.shape[1]) if count else samples[:0]
        except (DataError, OSError):
            return 0
        if not count or found.size != count * samples.shape[1]:
            return 0
        samples[:count] = found.reshape(count, -1)
        restore_random(generator, state["generator"], count)
        self.rows = count
        return count

    def keep(self, samples: np.ndarray, rows: int, generator: torch.Generator, *, now: bool = False) -> None:
        """Write down that the first `rows` of `samples` are finished, if it is time or `now`."""
        if not now and time.monotonic() - self._saved < self.seconds:
            return
        # What lies behind the rows that count is of a predecessor that was killed while it wrote.
        with self.path.open("r+b" if self.rows else "wb") as file:
            file.truncate(self.rows * samples[0].nbytes)
            file.seek(0, os.SEEK_END)
            file.write(memoryview(samples[self.rows : rows]).cast("B"))
            file.flush()
            os.fsync(file.fileno())
        replace_torch({"key": self.key, "rows": rows, "generator": generator.get_state()}, self.state_file)
        self.rows = rows
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove both files: the whole set is written."""
        self.state_file.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
