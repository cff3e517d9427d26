"""A stage that takes no time, for what concerns jobs alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.stage import Stage, StageProgress


@dataclass(frozen=True)
class KeepsItsEnvironment(Stage):
    """Writes down the variables around it."""

    path: Path

    @property
    def name(self) -> str:
        return f"keep {self.path.stem}"

    @property
    def output(self) -> Path:
        return self.path

    def key(self) -> str:
        return self.path.stem

    def progress(self) -> StageProgress:
        return StageProgress("writing")

    def work(self, key: str) -> None:
        self.commit(dict(os.environ), key)
