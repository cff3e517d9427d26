"""How many CPU cores this process may use, and does."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Cores in this process' affinity mask (a SLURM allocation can be smaller than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads; 0 leaves it as it is."""
    if threads:
        import torch

        torch.set_num_threads(threads)
