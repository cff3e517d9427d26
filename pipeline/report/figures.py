"""The figures of a run, for its page and for a paper. Each is a function of the run that gives a matplotlib figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.loop.run import Run
from pipeline.report.physics import compare_figure
from pipeline.report.style import COLOURS, INK, SOFT, new_figure, styled, success_map
from pipeline.results.generated_sets import generated_sets
from pipeline.results.grid import cells_of, grid_of
from pipeline.results.history import STAGES, history
from pipeline.results.training_curves import loss_curves, policy_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_POINTS = 300  # of a curve; more cannot be told apart
_FEW = 20  # points of a curve that are shown one by one


@styled
def success_grid(run: Run, iteration: int | None = None) -> Figure:
    """Success over the family's axes (CompoSuite: object x obstacle, a panel per objective, a row per robot).

    That of an iteration, by itself the best of all. Tasks with expert data are hatched, middle tasks have a dashed
    frame, held-out tasks a full one.
    """
    from matplotlib.patches import Rectangle

    grid = grid_of(run)
    columns = grid.across
    rows = len(grid.blocks) // columns
    size = (0.38 * len(grid.columns) * columns + 1.0, (0.38 * len(grid.rows) + 0.9) * rows)
    figure, axes = new_figure(rows, columns, size=size)
    colours = success_map()
    for place, (block, each) in enumerate(zip(grid.blocks, axes.flat, strict=True)):
        each.set(xlim=(0, len(grid.columns)), ylim=(len(grid.rows), 0), aspect="equal")
        each.set_title(" ".join(block.elements if rows > 1 else block.elements[-1:]))
        each.set_xticks(np.arange(len(grid.columns)) + 0.5, grid.columns, rotation=35, ha="right")
        names = grid.rows if place % columns == 0 else [""] * len(grid.rows)
        each.set_yticks(np.arange(len(grid.rows)) + 0.5, names)
        each.tick_params(length=0)
        each.spines[:].set_visible(False)
        for y, row in enumerate(block.rows):
            for x, cell in enumerate(row):
                _draw_cell(each, Rectangle, cell, x, y, iteration, colours)
    return figure


def _draw_cell(axes: Axes, rectangle: Any, cell: Any, x: int, y: int, iteration: int | None, colours: Any) -> None:
    place = {"xy": (x + 0.06, y + 0.06), "width": 0.88, "height": 0.88}
    if cell is None:
        axes.plot(x + 0.5, y + 0.5, ".", color="#dfe3ea", ms=3)
        return
    if cell.kind == "train":
        axes.add_patch(rectangle(**place, facecolor="#eef0f4", edgecolor="#c3c9d4", hatch="////", lw=0))
        return
    rate = cell.at(iteration)
    dashes = "--" if cell.kind == "middle" else "-"
    face = "white" if rate is None else colours(rate)
    axes.add_patch(rectangle(**place, facecolor=face, edgecolor=SOFT, lw=0.7, ls=dashes))
    text = "–" if rate is None else f"{rate:.2f}".lstrip("0") if rate < 1 else "1"
    dark = rate is not None and rate > 0.55
    axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=7, color="white" if dark else INK)


@styled
def diffusion_loss(run: Run) -> Figure | None:
    """Denoising loss while the generators train, one curve for each; those of an iteration in one colour."""
    curves = list(loss_curves(run))
    if not curves:
        return None
    figure, ((axes,),) = new_figure()
    for iteration, number, points in curves:
        marker = "." if len(points) < _FEW else ""
        look = {"color": COLOURS[iteration % len(COLOURS)], "label": "" if number else f"iteration {iteration}"}
        axes.plot(*_thin(points), marker=marker, lw=1.2, **look)
    axes.set(xlabel="training step", ylabel="denoising loss", yscale="log")
    axes.grid(alpha=0.25)
    if curves[-1][0] < len(COLOURS):
        axes.legend(frameon=False)
    return figure


def policy_success(run: Run) -> Figure | None:
    """Success while the policies of the held-out tasks train, in each task's best iteration."""
    return _policy_figure(run, "success_rate", "success", ylim=(-0.03, 1.03))


def policy_return(run: Run) -> Figure | None:
    """Return while the policies of the held-out tasks train, in each task's best iteration."""
    return _policy_figure(run, "mean_return", "return of an episode")


@styled
def _policy_figure(run: Run, key: str, label: str, **limits: Any) -> Figure | None:
    curves = list(policy_curves(run))
    if not curves:
        return None
    figure, ((axes,),) = new_figure()
    tasks = list(dict.fromkeys(task for task, _, _ in curves))
    by_name = len(tasks) <= len(COLOURS)
    for task, _, rows in curves:
        colour = COLOURS[tasks.index(task)] if by_name else "#9fb4cc"
        points = _thin([(row["step"], row[key]) for row in rows])
        axes.plot(*points, marker="o", ms=2, lw=1 if by_name else 0.6, color=colour)
    if by_name:
        for task, colour in zip(tasks, COLOURS, strict=False):
            axes.plot([], [], color=colour, label=task.label)
    else:
        steps = sorted({row["step"] for _, _, rows in curves for row in rows})
        mean = [np.mean([row[key] for _, _, rows in curves for row in rows if row["step"] == step]) for step in steps]
        axes.plot(steps, mean, lw=2, color=COLOURS[0], label=f"mean of {len(curves)} policies")
    axes.set(xlabel="gradient step", ylabel=label, **limits)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=6.5)
    return figure


@styled
def threshold_history(run: Run) -> Figure | None:
    """Acceptance threshold and the successes that met it, per iteration; the curriculum's phases along the axis."""
    rows = history(run)
    if not rows:
        return None
    figure, ((axes,),) = new_figure()
    known = cells_of(run).values()
    for kind, colour, marker in (("held out", COLOURS[2], "o"), ("middle", COLOURS[3], "s")):
        points = [(i, rate) for cell in known if cell.kind == kind for i, rate in enumerate(cell.rates)]
        points = [(i, rate) for i, rate in points if rate is not None]
        if points:
            axes.plot(*np.array(points).T, marker, ms=4, alpha=0.55, color=colour, label=kind, mec="none")
    indices = [row["index"] for row in rows]
    edges = [*indices, indices[-1] + 1]
    thresholds = [row["threshold"] for row in rows]
    axes.stairs(thresholds, np.array(edges) - 0.5, baseline=None, color=COLOURS[1], lw=1.6, label="threshold")
    phases = [row["phase"].replace("all sources", "") for row in rows]
    axes.set_xticks(indices, [f"{i}\n{phase}" for i, phase in zip(indices, phases, strict=True)])
    axes.set(xlabel="iteration", ylabel="success", ylim=(-0.03, 1.05))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.16))
    return figure


@styled
def data_quality(run: Run) -> Figure | None:
    """Success of a set's policies over its quality; None where no set was assessed and tried."""
    sets = [each for each in generated_sets(run) if each.quality is not None and each.rate is not None]
    if not sets:
        return None
    figure, (row,) = new_figure(1, 3, size=(7.2, 2.5))
    for axes, name in zip(row, ("distance", "violations", "duplicates"), strict=True):
        for kind, colour, marker in (("held out", COLOURS[2], "o"), ("middle", COLOURS[3], "s")):
            chosen = [s for s in sets if s.kind == kind and getattr(s.quality, name) is not None]
            points = [(getattr(s.quality, name), s.rate) for s in chosen]
            if points:
                axes.plot(*np.array(points).T, marker, ms=4, alpha=0.65, color=colour, label=kind, mec="none")
        axes.set(xlabel={"distance": "distance to training data (std)"}.get(name, f"share of {name}"))
        axes.set(ylim=(-0.03, 1.03))
        axes.grid(alpha=0.25)
    row[0].set_ylabel("success")
    row[0].legend(frameon=False)
    return figure


@styled
def stage_times(run: Run) -> Figure | None:
    """Wall time of each stage per iteration."""
    rows = [row for row in history(run) if row["seconds"]]
    if not rows:
        return None
    figure, ((axes,),) = new_figure(size=(4.6, 2.4))
    left = np.zeros(len(rows))
    for stage, colour in zip(run.config.stages, COLOURS, strict=False):
        minutes = np.array([row["seconds"].get(stage, 0.0) / 60 for row in rows])
        label = STAGES[stage]
        axes.barh([row["index"] for row in rows], minutes, left=left, color=colour, height=0.6, label=label)
        left += minutes
    axes.set(xlabel="minutes", ylabel="iteration")
    axes.set_yticks([row["index"] for row in rows])
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(-0.02, 1.18), fontsize=7)
    return figure


def physics_errors(run: Run) -> Figure | None:
    """How far generated next states are from the simulator's, beside real data's own; None where unchecked."""
    checked = [each.physics for each in generated_sets(run) if each.physics is not None]
    return compare_figure(checked) if checked else None


FIGURES: dict[str, tuple[Callable[[Run], Any], str]] = {
    "success_grid": (success_grid, "Best success of every task"),
    "threshold": (threshold_history, "Success of every set, and the threshold it had to pass"),
    "diffusion_loss": (diffusion_loss, "Training of the generator"),
    "policy_success": (policy_success, "Success while the policies train: held-out tasks, each in its best iteration"),
    "policy_return": (policy_return, "Return while the policies train"),
    "data_quality": (data_quality, "Quality of generated sets and the success of the policies they taught"),
    "physics": (
        physics_errors,
        "Generated next states against the simulator's: errors of generated sets (green) and real data (grey: middle "
        "90 % and median); orange: by how much a real step changes the quantity",
    ),
    "stage_times": (stage_times, "Wall time per stage"),
}
"""Name -> how it is drawn, and its caption. A figure without anything to show is None."""


def _thin(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """(2, n) the points' x and y, of many points a part."""
    curve = np.array(points).T
    if len(points) <= _POINTS:
        return curve
    return np.asarray(curve[:, np.linspace(0, len(points) - 1, _POINTS).round().astype(int)])
