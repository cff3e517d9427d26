"""The figure of a check against the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from pipeline.report.style import new_figure, styled
from pipeline.results.physics_summary import UNITS, PhysicsSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST = 1e-5  # errors below it are drawn there: the axes are logarithmic


@styled
def compare_figure(summaries: Sequence[PhysicsSummary]) -> Figure:
    """A panel per quantity, a line per task from the 5 to the 95 % quantile (thick: middle half, dot: median).

    The grey band is the middle 90 % of real data's own errors, the grey line their median; the orange line is by how
    much a real step changes the quantity (median). A set whose every row was undetermined has no line.
    """
    tasks = [CompoSuiteTask.parse(each.task).label for each in summaries]
    figure, axes = new_figure(2, 4, size=(8.6, 2.2 + 0.3 * len(tasks)))
    for panel, (name, unit) in zip(axes.flat, UNITS.items(), strict=True):
        for y, each in enumerate(summaries):
            real, own, moved = (
                {level: max(value, _LEAST) for level, value in each.quantiles(kind, name).items()}
                for kind in ("real", "generated", "moved")
            )
            if real:
                panel.fill_betweenx([y - 0.45, y + 0.45], real[0.05], real[0.95], color="#e2e6ed", lw=0)
                panel.plot([real[0.5]] * 2, [y - 0.45, y + 0.45], color="#8a93a3", lw=1.2)
            if moved:
                panel.plot([moved[0.5]] * 2, [y - 0.45, y + 0.45], color="#c2571a", lw=1.2)
            if not own:
                continue
            panel.plot([own[0.05], own[0.95]], [y, y], color="#14713f", lw=1)
            panel.plot([own[0.25], own[0.75]], [y, y], color="#14713f", lw=3.2, solid_capstyle="butt")
            panel.plot(own[0.5], y, "o", color="white", mec="#14713f", ms=4)
        panel.set(xscale="log", ylim=(len(tasks) - 0.4, -0.6), title=f"{name} ({unit})" if unit else name)
        first = panel in axes[:, 0]
        panel.set_yticks(range(len(tasks)), tasks if first else [""] * len(tasks), fontsize=6.5)
        panel.tick_params(axis="y", length=0)
    return figure
