"""The agent's own transitions: a ring on the device, saved in increments, so that a checkpoint writes what is new."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corl.batch import Batch
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.task import Task
from runtime.atomic import atomic_path
from runtime.errors import DataError
from runtime.npz import NUMBERS, read_npy


class RowCode:
    """Observations as they are, and the rows [o, a, r, o', done] of a replay."""

    def __init__(self, dim: int, action_dim: int) -> None:
        self.dim, self.action_dim, self.width = dim, action_dim, 2 * dim + action_dim + 2

    def __call__(self, states: np.ndarray, task: Any) -> np.ndarray:
        """The environment's observations (B, dim) as float32."""
        return np.asarray(states, np.float32)

    def rows(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
        terminals: np.ndarray,
    ) -> np.ndarray:
        """(B, width) float32"""
        columns = (observations, actions, rewards[:, None], next_observations, terminals[:, None])
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def cut(self, rows: Tensor) -> Batch:
        """Rows (..., width) to a batch of the same leading dimensions."""
        sizes = (self.dim, self.action_dim, 1, self.dim, 1)
        observations, actions, rewards, next_observations, dones = rows.split(sizes, dim=-1)
        return Batch(observations, actions, rewards[..., 0], next_observations, dones[..., 0])


class ObservationCode(RowCode):
    """What the agent sees of the simulator's states (B, 77): observations (B, D) float32 by a `StateTransform`."""

    def __init__(self, transform: StateTransform) -> None:
        self.transform = transform
        super().__init__(transform.dim, transform.layout.action_dim)

    def __call__(self, states: np.ndarray, task: Task) -> np.ndarray:
        return self.transform.apply(states, task)


class OnlineReplay:
    """The last `capacity` rows of all that were added."""

    def __init__(self, capacity: int, width: int, device: torch.device) -> None:
        # Not zeroed: the memory of a large ring is taken only as it fills.
        self.rows = torch.empty(capacity, width, device=device)
        self.added = self._saved = 0

    def __len__(self) -> int:
        return min(self.added, len(self.rows))

    def add(self, rows: np.ndarray) -> None:
        """Put in rows (E, width), over the oldest."""
        positions = torch.arange(self.added, self.added + len(rows), device=self.rows.device) % len(self.rows)
        self.rows[positions] = torch.from_numpy(rows).to(self.rows.device)
        self.added += len(rows)

    def save(self, folder: Path) -> None:
        """Write the rows since the last save; files whose rows are all overwritten go."""
        first = max(self._saved, self.added - len(self.rows))
        if self.added > first:
            folder.mkdir(parents=True, exist_ok=True)
            positions = torch.arange(first, self.added, device=self.rows.device) % len(self.rows)
            with atomic_path(folder / f"{first:012d}-{self.added:012d}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, self.rows[positions].cpu().numpy())
        self._saved = self.added

    def prune(self, folder: Path) -> None:
        """Remove files of rows that are no longer in the ring; to be called once the new checkpoint is safe."""
        for path, _, stop in _chunks(folder):
            if stop <= self.added - len(self.rows):
                path.unlink()

    def clear(self, folder: Path) -> None:
        """Be empty, and the folder too."""
        self.added = self._saved = 0
        shutil.rmtree(folder, ignore_errors=True)

    def load(self, folder: Path, added: int) -> None:
        """Read back the ring as it was when `added` rows had been put in.

        Rows saved after that (by a run killed before its checkpoint) are removed. Raises `DataError` where some are
        missing or damaged.
        """
        position = max(0, added - len(self.rows))
        self.added = position
        for path, start, stop in _chunks(folder):
            if start >= added:
                path.unlink()
                continue
            if stop <= position:
                continue
            if start > self.added:
                break
            rows = read_npy(path, NUMBERS)
            if rows.shape != (stop - start, self.rows.shape[1]) or rows.dtype != np.float32:
                raise DataError(
                    f"{path}: holds {rows.dtype} {rows.shape}, expected float32 {(stop - start, self.rows.shape[1])}"
                )
            if not np.isfinite(rows).all():
                raise DataError(f"{path}: holds numbers that are not finite")
            self.add(rows[self.added - start :])
        if self.added != added:
            raise DataError(f"{folder}: holds {self.added} rows of the replay, expected {added}")
        self._saved = added


def _chunks(folder: Path) -> list[tuple[Path, int, int]]:
    """Files with the range of rows that they hold, in order."""
    files = sorted(folder.glob("[0-9]*.npy"))
    ranges = [path.stem.split("-") for path in files]
    return [(path, int(first), int(stop)) for path, (first, stop) in zip(files, ranges, strict=True)]
