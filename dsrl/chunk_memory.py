"""Chunks that the frozen policy gave for stored decisions, kept so that it need not be asked again for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NEVER = -1


class ChunkMemory:
    """For each row of a store: pairs of prior noise and chunk at its state, and the last chunk at its next state.

    Rows are numbered, the `offline` ones first, then those of the replay buffer.
    """

    def __init__(self, offline: int, buffer: Any, pairs: int, sizes: tuple[int, int]) -> None:
        count, (noise_dim, chunk_dim) = offline + buffer.buffer_size * buffer.n_envs, sizes
        self.arrays = {
            "w": np.zeros((count if pairs else 0, pairs, noise_dim), np.float32),
            "chunks": np.zeros((count if pairs else 0, pairs, chunk_dim), np.float32),
            "next_chunks": np.zeros((count, chunk_dim), np.float32),
            "next_log_density": np.zeros(count, np.float32),
            "next_asked": np.full(count, _NEVER, np.int64),
        }

    def put_pairs(self, rows: np.ndarray, w: np.ndarray, chunks: np.ndarray) -> None:
        """w (R * pairs, W) and chunks (R * pairs, C), a row's pairs one after the other."""
        for name, values in (("w", w), ("chunks", chunks)):
            self.arrays[name][rows] = values.reshape(len(rows), -1, values.shape[-1])

    def pairs(self, rows: np.ndarray, number: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """The pair `number` (B,) of each row: noise (B, W) and chunk (B, C)."""
        w, chunks = (self.arrays[name][rows, number] for name in ("w", "chunks"))
        return torch.from_numpy(w).to(device), torch.from_numpy(chunks).to(device)

    def longest_ago(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Places in `rows` (B,) of the `count` whose next chunk is oldest, and of all that have none."""
        asked = self.arrays["next_asked"][rows]
        return np.argsort(asked, kind="stable")[: max(count, int((asked == _NEVER).sum()))]

    def put_next(self, rows: np.ndarray, chunks: np.ndarray, log_density: np.ndarray, now: int) -> None:
        """Keep chunks (R, C) and log densities (R,); `now` counts updates."""
        self.arrays["next_chunks"][rows], self.arrays["next_log_density"][rows] = chunks, log_density
        self.arrays["next_asked"][rows] = now

    def next(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Chunks (B, C) and log densities (B,)."""
        chunks, density = (self.arrays[name][rows] for name in ("next_chunks", "next_log_density"))
        return torch.from_numpy(chunks).to(device), torch.from_numpy(density).to(device)

    def forget(self, rows: np.ndarray) -> None:
        """Other decisions come to stand in these rows."""
        self.arrays["next_asked"][rows] = _NEVER

    def state(self, filled: int) -> dict[str, Tensor]:
        """The first `filled` rows."""
        return {name: torch.from_numpy(array[:filled].copy()) for name, array in self.arrays.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.arrays["next_asked"][:] = _NEVER
        for name, values in state.items():
            self.arrays[name][: len(values)] = values.numpy()
