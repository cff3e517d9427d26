"""What an expert is called with."""

from __future__ import annotations

import numpy as np

from offline_compositional_rl_datasets.layout import COMPOSUITE


def check_batch(observations: np.ndarray) -> None:
    """Raises `ValueError` unless the array is (B, 77); other entries would be taken for what an expert looks for."""
    if observations.ndim != 2 or observations.shape[1] != COMPOSUITE.state_dim:
        raise ValueError(
            f"observations of shape {observations.shape}, expected (B, {COMPOSUITE.state_dim}), without task ids"
        )
