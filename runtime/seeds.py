"""Seeds derived from names, so that no two parts of a run share random numbers by accident."""

from __future__ import annotations

import hashlib

import numpy as np

LARGEST_SEED = 2**63 - 1
"""That torch takes."""


def derive_seed(*parts: int | str) -> int:
    """A 31-bit seed that depends on every part, the same on every machine and run."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def rng(*parts: int | str) -> np.random.Generator:
    """A NumPy generator seeded by `derive_seed(*parts)`."""
    return np.random.default_rng(derive_seed(*parts))
