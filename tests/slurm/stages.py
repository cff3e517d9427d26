"""A stage that takes no time, for what concerns jobs alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.stage import StageProgress
from runtime.atomic import commit_artifact


@dataclass(frozen=True)
class KeepsItsEnvironment:
    """Writes down the variables around it."""

    output: Path
    threads: int = 0

    @property
    def name(self) -> str:
        return f"keep {self.output.stem}"

    def key(self) -> str:
        return self.output.stem

    def progress(self) -> StageProgress:
        return StageProgress("writing")

    def __call__(self) -> None:
        text = json.dumps(dict(os.environ))
        commit_artifact(self.output, lambda temporary: temporary.write_text(text), {"key": self.key()})
