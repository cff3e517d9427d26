"""Training samples: at every step of a demonstration, what was seen and the next few actions."""

from __future__ import annotations

import numpy as np

from runtime.errors import ConfigError, DataError


def chunk_rows(lengths: np.ndarray, horizon: int, *, pad: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each sample's observation (M,) and of its `horizon` actions (M, horizon), for episodes in a row.

    A chunk never leaves its episode. With `pad` the last action is repeated where the episode ends, and every step
    starts a sample; without, the last `horizon` - 1 steps of an episode start none.
    """
    if horizon < 1:
        raise ConfigError(f"pred_horizon {horizon}: expected at least 1")
    ends = np.cumsum(lengths)
    starts = ends - lengths
    last = np.repeat(ends - 1, lengths)
    rows = np.arange(int(ends[-1]))
    if not pad:
        rows = rows[rows + horizon - 1 <= last]
        if not len(rows):
            raise DataError(f"no episode of {horizon} steps (the longest has {lengths.max()}); lower pred_horizon")
    chunks = np.minimum(rows[:, None] + np.arange(horizon), last[rows][:, None])
    assert (chunks >= np.repeat(starts, lengths)[rows][:, None]).all()
    return rows, chunks
