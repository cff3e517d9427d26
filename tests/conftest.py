"""Where the shared reference material is, for the tests that need it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.cpus import cpu_count

# Tests run side by side on few cores: more threads than cores make them many times slower.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of reference recordings; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference recordings in {SHARED.name}/ beside the project")
    return SHARED


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker more than cores: tests that run the loop or SLURM wait for a third of their time."""
    return cpu_count() + 1
