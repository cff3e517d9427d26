"""Runs of one method as jobs, with `scores.csv` and the tables that follow from it, rewritten whenever a run ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.jobs.queue import run_batch
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from pipeline.stages.score_table import SCORES_FILE, ScoreRow, write_score_table
from pipeline.stages.scored import ScoredStage
from pipeline.sweeps.ownership import owned
from runtime.errors import JobError

log = logging.getLogger(__name__)


def run_sweep(
    stages: Sequence[ScoredStage],
    resources: Resources,
    cluster: ClusterConfig,
    retry: RetryConfig,
    *,
    logs: Path,
    folder: Path,
    identity: Mapping[str, Any],
    tables: Callable[[Sequence[ScoreRow], Path], None],
) -> None:
    """Run all stages as jobs; `tables(rows, folder)` writes what follows from the rows so far.

    `identity` is what all stages have in common. Raises `JobError` where runs failed for good, after the others have
    ended; `StateError` where the folder is another command's.
    """

    def write() -> None:
        rows = [row for stage in stages for row in stage.score_rows()]
        write_score_table(folder / SCORES_FILE, rows)
        tables(rows, folder)

    def on_done(stage: ScoredStage) -> str:
        write()
        return stage.summary()

    with owned(folder, identity, [stage.name for stage in stages]):
        failed = run_batch(stages, resources, cluster, retry, on_done, name=folder.name, folder=folder, logs=logs)
        write()
    log.info("tables: %s", folder)
    if failed:
        name, reason = next(iter(failed.items()))
        raise JobError(f"{len(failed)} of {len(stages)} runs failed for good; {name}: {reason}")
