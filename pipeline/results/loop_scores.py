"""What a loop's policies came to, as rows of the table that all methods write."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from pipeline.stages.score_table import LOOP, ScoreRow

MIDDLE, PRACTISED = "middle", "practised"


def method_name(*words: str) -> str:
    """`loop` for held-out tasks, `loop middle` for the middle ones; with `practised` of the practised sets."""
    return " ".join((LOOP, *words))


def loop_rows(run: Run, iterations: Sequence[Iteration]) -> list[ScoreRow]:
    """A row per task, seed and iteration, which is its `step`."""
    return [
        ScoreRow(
            task.name, method_name(*kind, *word), seed, iteration.index, score.solved, score.trials, score.mean_return
        )
        for kind, tasks in (((), run.tasks.test), ((MIDDLE,), run.tasks.middle))
        for word, part in (((), "scores"), ((PRACTISED,), "practised"))
        for iteration in iterations
        for task in tasks
        for seed, score in sorted(getattr(iteration, part).get(task, {}).items())
    ]
