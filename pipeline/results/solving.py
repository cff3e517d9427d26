"""How many steps of the environment online runs take until they solve their task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.metrics import markdown_table, write_csv

if TYPE_CHECKING:
    from pipeline.results.compare import Curve, Method

SOLVED_AT = 0.8
"""The success of an evaluation at which a task counts as solved."""


def first_solved(curve: Curve, success: float = SOLVED_AT) -> int | None:
    """The step of the first evaluation with that success; None where there is none."""
    return min((step for step, value in curve.items() if value >= success), default=None)


def write_steps(methods: Sequence[Method], tasks: Sequence[str], path: Path) -> str:
    """Write a row per run, `task, method, seed, solved_at, steps` (the last evaluation's), and give it as Markdown.

    In the Markdown a cell has a method's runs in the order of their seeds; `> N` is a run without such an evaluation
    in N steps.
    """
    rows, lines = [], []
    online = [method for method in methods if any(task in method.curves for task in tasks)]
    for task in tasks:
        cells = [task]
        for method in online:
            curves: Mapping[int, Curve] = method.curves.get(task, {})
            solved = {seed: first_solved(curve) for seed, curve in sorted(curves.items())}
            rows += [
                {"task": task, "method": method.name, "seed": seed, "solved_at": step, "steps": max(curves[seed])}
                for seed, step in solved.items()
            ]
            steps = [f"> {max(curves[seed]):,}" if step is None else f"{step:,}" for seed, step in solved.items()]
            cells.append("; ".join(steps) or "-")
        lines.append(cells)
    write_csv(path, ["task", "method", "seed", "solved_at", "steps"], rows)
    header = ["task", *(method.name for method in online)]
    table = markdown_table([header, *lines])
    return f"Steps of the environment until an evaluation with a success of {SOLVED_AT}, seed by seed.\n\n{table}"
