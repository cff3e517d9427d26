"""What a killed or interrupted generation had finished, so that its successor goes on from there."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime.checkpoint import entry, load_checkpoint, replace_torch, restore_random
from runtime.errors import DataError, one_line

log = logging.getLogger(__name__)

FORMAT = "samples 1"


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
        """Fill the first rows of `samples` (N, D) float32 and set the generator; gives how many rows there were.

        Files that are damaged, of another version or of something else are named in one line and not taken up.
        """
        if not self.state_file.exists():
            return 0
        try:
            count, state = self._read(len(samples))
            found = np.fromfile(self.path, np.float32, count * samples.shape[1])
            if found.size != count * samples.shape[1] or not np.isfinite(found).all():
                raise DataError(f"{self.path}: expected {count} rows of {samples.shape[1]} finite numbers")
            restore_random(generator, state, count)
        except (DataError, OSError, RuntimeError) as error:
            log.warning("%s; drawing starts anew", one_line(error))
            return 0
        samples[:count] = found.reshape(count, -1)
        self.rows = count
        return count

    def _read(self, most: int) -> tuple[int, Tensor]:
        """How many rows count, and the random state after them. Raises `DataError`."""
        state = load_checkpoint(self.state_file)
        if state.get("format") != FORMAT or state.get("key") != self.key:
            raise DataError(f"{self.state_file}: of another version, or of other samples")
        count, random = entry(state, "rows", int, self.state_file), entry(state, "generator", Tensor, self.state_file)
        if not 0 < count <= most or random.dtype != torch.uint8:
            raise DataError(f"{self.state_file}: {count} rows, expected 1 to {most} and a random state")
        return count, random

    def keep(self, samples: np.ndarray, rows: int, generator: torch.Generator, *, now: bool = False) -> None:
        """Write down that the first `rows` of `samples` are finished, if it is time or `now`."""
        if not now and time.monotonic() - self._saved < self.seconds:
            return
        # What lies behind the rows that count is of a predecessor that was killed while it wrote.
        with self.path.open("r+b" if self.rows else "wb") as file:
            file.truncate(self.rows * samples[0].nbytes)
            file.seek(0, os.SEEK_END)
            file.write(samples[self.rows : rows].data.cast("B"))
            file.flush()
            os.fsync(file.fileno())
        state = {"format": FORMAT, "key": self.key, "rows": rows, "generator": generator.get_state()}
        replace_torch(state, self.state_file)
        self.rows = rows
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove both files: the whole set is written."""
        self.state_file.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
