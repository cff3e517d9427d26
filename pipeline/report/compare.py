"""Methods side by side: success per held-out task, learning curves with bands, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.results.compare import write_steps, write_table
from pipeline.results.curves import aligned, band
from pipeline.results.methods import Method
from runtime.atomic import atomic_path, write_text
from runtime.checks import distinct
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compare(methods: Sequence[Method], folder: Path, tasks: Sequence[str] = ()) -> list[Path]:
    """Write `table.csv`, `table.md`, `success.png` and, where there are curves, `curves.png` and `steps.csv`.

    Tasks are those that some method knows, in the first one's order; or those given. Raises `ConfigError` where no
    method has a result of one of these.
    """
    known = list(dict.fromkeys(task for method in methods for task in method.success))
    if tasks:
        distinct("--tasks", tasks)
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise ConfigError(f"--tasks {', '.join(unknown)}: no method has a result of it; there are {', '.join(known)}")
    chosen = tasks or known
    files = [folder / "table.csv", folder / "table.md", folder / "success.png"]
    text = write_table(methods, chosen, files[0])
    _save(files[2], lambda: _draw_success(methods, chosen))
    learned = [task for task in chosen if any(task in method.curves for method in methods)]
    if learned:
        files += [folder / "curves.png", folder / "steps.csv"]
        _save(files[-2], lambda: _draw_curves(methods, chosen))
        text += "\n" + write_steps(methods, learned, files[-1])
    write_text(files[1], text)
    return files


def _draw_success(methods: Sequence[Method], tasks: Sequence[str]) -> None:
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(max(5.0, 0.9 * len(tasks) + 2), 3.6), dpi=120, layout="constrained")
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        values = [np.array(list(method.success.get(task, {}).values())) for task in tasks]
        places = [k + (i - (len(methods) - 1) / 2) * width for k, v in enumerate(values) if len(v)]
        there = [v for v in values if len(v)]
        means = [v.mean() for v in there]
        bands = [band(v) or (v.mean(), v.mean()) for v in there]
        errors = np.array([[m - b[0], b[1] - m] for m, b in zip(means, bands, strict=True)]).T.clip(min=0)
        axes.bar(places, means, width, yerr=errors if len(means) else None, capsize=2, label=method.name)
    robots = {task.split("_")[0] for task in tasks}
    # The robot is left out where it is the same in all.
    names = [task.split("_", 1)[-1] for task in tasks] if len(robots) == 1 else tasks
    labels = [name.replace("_", "\n") for name in names]
    axes.set_xticks(range(len(tasks)), labels, fontsize=7)
    axes.set(ylabel="success", ylim=(0, 1.05))
    _tidy(axes)
    axes.legend(frameon=False, fontsize=7, ncols=min(4, len(methods)), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_curves(methods: Sequence[Method], tasks: Sequence[str]) -> None:
    from matplotlib import pyplot

    drawn = [task for task in tasks if any(task in method.curves for method in methods)]
    columns = min(3, len(drawn))
    lines = -(-len(drawn) // columns)
    size = (3.6 * columns, 2.7 * lines)
    _, grid = pyplot.subplots(lines, columns, figsize=size, dpi=120, layout="constrained", squeeze=False)
    for axes in grid.flat[len(drawn) :]:
        axes.axis("off")
    for axes, task in zip(grid.flat, drawn, strict=False):
        for i, method in enumerate(methods):
            color = f"C{i}"
            if task in method.curves:
                steps, values = aligned(method.curves[task])
                axes.plot(steps, values.mean(axis=0), color=color, label=f"{method.name} ({len(values)})", marker=".")
                interval = band(values)
                if interval:
                    axes.fill_between(steps, *interval, color=color, alpha=0.2, linewidth=0)
            elif method.success.get(task):
                level = np.mean(list(method.success[task].values()))
                axes.axhline(level, color=color, linestyle="--", linewidth=1, label=method.name)
        axes.set_title(task, fontsize=8)
        axes.set(xlabel="environment steps", ylabel="success", ylim=(-0.03, 1.03))
        _tidy(axes)
        axes.legend(frameon=False, fontsize=6)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _save(path: Path, draw: Callable[[], None]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    draw()
    with atomic_path(path) as temporary:
        pyplot.savefig(temporary, format="png")
    pyplot.close()
