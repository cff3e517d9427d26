"""Where the shared reference material is, for the tests that need it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


# Tests of these share a run of the loop, a cluster or a wheel, which each worker with one of them would make anew.
TOGETHER = (
    "tests/pipeline/loop/test_loop.py",
    "tests/pipeline/loop/test_practice_loop.py",
    "tests/pipeline/loop/test_own_family_loop.py",
    "tests/slurm/",
    "tests/test_installation.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests go to workers one by one, those of `TOGETHER` as one and first. xdist 3.8 has no groups with pytest 9."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((group for group in TOGETHER if nodeid.startswith(group)), nodeid)

    return Scheduling(config, log)
