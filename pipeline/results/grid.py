"""A run's tasks with their success, and the grids that show them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from offline_compositional_rl_datasets.task import Task
from pipeline.loop.run import Run


@dataclass(frozen=True)
class Cell:
    """A task: `kind` is train, middle or held out; per iteration its success and the counts (None: not tried)."""

    task: Task
    kind: str
    rates: tuple[float | None, ...] = ()
    counts: tuple[str, ...] = ()
    accepted: int | None = None
    practised: bool = False  # and accepted with its practised set

    @property
    def best(self) -> float | None:
        return max((rate for rate in self.rates if rate is not None), default=None)

    def at(self, iteration: int | None) -> float | None:
        """Success in an iteration; None stands for the best of all."""
        return self.best if iteration is None else self.rates[iteration]


@dataclass(frozen=True)
class Block:
    """The tasks with these `elements` of the further axes.

    `rows[row][column]` is None where the split has no such task.
    """

    elements: tuple[str, ...]
    rows: tuple[tuple[Cell | None, ...], ...]


@dataclass(frozen=True)
class Grid:
    """The tasks by the family's `grid_axes`: elements of rows and columns that the split has, a block per others.

    `across` blocks stand side by side: those that differ in the third axis.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    across: int
    blocks: tuple[Block, ...]


def cells_of(run: Run) -> dict[Task, Cell]:
    """All tasks of the split: train, held out, middle."""
    accepted = run.state.accepted_in()
    found = {task: Cell(task, "train") for task in run.tasks.train}
    for task in run.tasks.generated:
        rates, counts = [], []
        for it in run.state.iterations:
            rate, scores = it.rate(task), it.scores.get(task, {}).values()
            rates.append(None if rate is None else float(rate))
            counts.append(f"{sum(s.solved for s in scores)}/{sum(s.trials for s in scores)}" if scores else "")
        kind = "held out" if task in run.tasks.test else "middle"
        practised = task in accepted and task in run.state.iterations[accepted[task]].verdict.practised
        found[task] = Cell(task, kind, tuple(rates), tuple(counts), accepted.get(task), practised)
    return found


def grid_of(run: Run) -> Grid:
    axes, elements, known = run.family.grid_axes, dict(run.family.layout.axes), cells_of(run)
    lacking = 2 - len(axes)
    at = {(*(getattr(task, axis) for axis in axes), *[""] * lacking): cell for task, cell in known.items()}
    shown = [tuple(e for e in elements[axis] if any(getattr(t, axis) == e for t in known)) for axis in axes]
    names: list[tuple[str, ...]] = [*shown, *[("",)] * lacking]
    rows, columns, *others = names
    blocks = tuple(
        Block(chosen, tuple(tuple(at.get((row, column, *reversed(chosen))) for column in columns) for row in rows))
        for chosen in itertools.product(*reversed(others))
    )
    return Grid(rows, columns, len(others[0]) if others else 1, blocks)
