"""One throw-away cluster for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing, throwaway_cluster
from tests.slurm.faults import Undisturbed


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with throwaway_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    return Undisturbed(cluster, folder)
