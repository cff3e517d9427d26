"""Methods side by side as tables: success per task, and the steps that online runs take until they solve one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.results.curves import SOLVED_AT, Curve, band, first_solved
from pipeline.results.methods import Method, columns_of
from runtime.tables import markdown_table, write_csv


def write_table(methods: Sequence[Method], tasks: Sequence[str], path: Path) -> str:
    """Write the success of methods on tasks, and give it as Markdown."""
    columns = ["task"]
    for method in methods:
        columns += columns_of(method.name)
    rows, lines = [], []
    for task in tasks:
        row: dict[str, object] = {"task": task}
        cells = [task]
        for method in methods:
            values = np.array(list(method.success.get(task, {}).values()))
            if not len(values):
                cells.append("-")
                continue
            row |= {method.name: f"{values.mean():.4f}", f"{method.name}_seeds": len(values)}
            interval = band(values)
            cell = f"{values.mean():.2f}"
            if interval:
                row |= {f"{method.name}_low": f"{interval[0]:.4f}", f"{method.name}_high": f"{interval[1]:.4f}"}
                cell += f" [{interval[0]:.2f}, {interval[1]:.2f}]"
            cells.append(cell)
        rows.append(row)
        lines.append(cells)
    # Averages are comparable only over the tasks that all methods know.
    shared = [task for task in tasks if all(method.success.get(task) for method in methods)]
    if shared:
        means = [np.mean([np.mean(list(method.success[task].values())) for task in shared]) for method in methods]
        name = f"average of {len(shared)} shared tasks"
        rows.append({"task": name, **{m.name: f"{mean:.4f}" for m, mean in zip(methods, means, strict=True)}})
        lines.append([name, *(f"{mean:.2f}" for mean in means)])
    write_csv(path, columns, rows)
    header = ["task", *(method.name for method in methods)]
    table = markdown_table([header, *lines])
    return f"{table}\nMean success over seeds; in brackets the 95 % bootstrap interval over seeds.\n"


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
