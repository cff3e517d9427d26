"""What an expert is called with."""

from __future__ import annotations

import numpy as np

from offline_compositional_rl_datasets.composuite import COMPOSUITE


def check_batch(states: np.ndarray) -> None:
    """Raises `ValueError` unless the array is (B, 77); other entries would be taken for what an expert looks for."""
    if states.ndim != 2 or states.shape[1] != COMPOSUITE.state_dim:
        raise ValueError(f"states of shape {states.shape}, expected (B, {COMPOSUITE.state_dim}), without task ids")
