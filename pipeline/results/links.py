"""The files of a run that its page leads to."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from pipeline.loop.plan import (
    generator_stage,
)
from pipeline.loop.run import Run
from pipeline.results import tables


def links(run: Run) -> list[tuple[str, str]]:
    """(name, address relative to the page) of the files that are there."""
    state = run.state
    found = [("state", run.state_file), ("configuration", run.folder / "config.json")]
    if state.iterations:
        found += [
            ("table of held-out tasks", tables.final_table_file(run)),
            ("table of practice", run.tables_folder / "practice.csv"),
            ("tables per iteration", run.tables_folder),
            ("best generated sets", tables.best_folder(run)),
            ("logs of the jobs", run.jobs_folder),
        ]
    for it in state.iterations:
        found.append((f"generator and sets of iteration {it.index}", generator_stage(run, it).checkpoint.parent))
        folder = run.paths.results_path / f"augmented_{it.index}" / "policies" / run.config.model_name(it.index)
        found.append((f"policies of iteration {it.index}", folder))
    return [(name, _address(path, run.folder)) for name, path in found if path.exists()]


def _address(path: Path, folder: Path) -> str:
    """The percent-encoded address of a file from a page in `folder`: what is a space or # in a path is none in it."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
