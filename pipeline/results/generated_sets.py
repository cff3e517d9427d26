"""A run's generated sets: quality, physics, and the success of what learned from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.plan import (
    generation_stages,
)
from pipeline.loop.run import Run
from pipeline.results.physics_summary import PhysicsSummary
from pipeline.stages.paths import PHYSICS_FILE
from runtime.records import read_optional

if TYPE_CHECKING:
    from diffusion.quality import Quality


@dataclass(frozen=True)
class GeneratedSet:
    """What is known of a generated set: quality and physics where they were assessed, success of its policies."""

    iteration: int
    task: Task
    kind: str
    quality: Quality | None
    physics: PhysicsSummary | None
    rate: float | None


def generated_sets(run: Run) -> list[GeneratedSet]:
    """The sets of all iterations of which quality or physics is known."""
    found = []
    for it in run.state.iterations:
        for stage in generation_stages(run, it):
            physics = read_optional(PhysicsSummary, stage.output.with_name(PHYSICS_FILE))
            quality, rate = stage.quality(), it.rate(stage.task)
            if quality is not None or physics is not None:
                kind = "held out" if stage.task in run.tasks.test else "middle"
                success = None if rate is None else float(rate)
                found.append(GeneratedSet(it.index, stage.task, kind, quality, physics, success))
    return found
