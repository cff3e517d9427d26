"""Iterative compositional data generation (Pham et al. 2026): the algorithm."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from pipeline.loop.curriculum import filter_sources, phase_of
from pipeline.loop.selection import ThresholdRule, select
from pipeline.loop.state import Iteration
from pipeline.loop.steps import Steps


def iterate(steps: Steps) -> None:
    """Train the generator on the pool, generate every unsolved task, validate, keep the good sets; again."""
    config, tasks = steps.run.config, steps.run.tasks
    reduction, least = (Decimal(str(x)) for x in (config.threshold_reduction_amount, config.min_threshold))
    rule = ThresholdRule(reduction, config.threshold_reduction_cycle, least)
    while True:
        state = steps.state
        if state.current is None:
            targets = state.remaining(tasks.generated)
            if not targets:
                return steps.save(state.end("all tasks solved"))
            if state.next_index >= config.max_iterations:
                return steps.save(state.end(f"{state.next_index} iterations done"))
            phase = phase_of(state.next_index, steps.run.family.curriculum_axes(), config.curriculum_seed)
            sources = filter_sources(state.accepted(), phase)
            steps.begin(Iteration(state.next_index, targets, sources, str(phase) if phase else None))
        elif state.current.index >= config.max_iterations:
            i = state.current.index
            return steps.save(
                state.end(f"{i} iterations done; {i} was begun, --max_iterations {i + 1} goes on with it")
            )

        steps.train_generator()
        steps.generate()
        steps.validate()
        steps.practise()

        current = steps.iteration
        selection = select(current.rates(), steps.state.threshold, rule)
        practised = tuple(filter(current.by_practice, selection.good))
        steps.finish(dataclasses.replace(selection, practised=practised))
