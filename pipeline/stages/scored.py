"""What sweeps and their tables ask of a stage beside its artifact."""

from __future__ import annotations

import abc

from pipeline.jobs.stage import Stage
from pipeline.stages.score_table import ScoreRow


class ScoredStage(Stage):
    """A stage whose results are scores."""

    @abc.abstractmethod
    def score_rows(self) -> list[ScoreRow]:
        """Those that are there so far."""

    @abc.abstractmethod
    def summary(self) -> str:
        """The result in a few words."""
