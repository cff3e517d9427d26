"""How figures look, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from runtime.atomic import atomic_path
from runtime.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

P = ParamSpec("P")
F = TypeVar("F", bound="Figure | None")

INK, SOFT = "#1d2433", "#5b6475"
LOW, HIGH = "#f3f7f5", "#14713f"  # of success 0 and 1
COLOURS = ("#1f5fa8", "#c2571a", "#14713f", "#7a4fa3", "#a88400", "#4f8a8b", "#a8325e", "#5b6475")
_STYLE: dict[RcKeyType, Any] = {
    "font.size": 8,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 8.5,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def styled(draw: Callable[P, F]) -> Callable[P, F]:
    """The house style while drawing; without pyplot, whose global state two threads would share."""

    def drawn(*args: P.args, **kwargs: P.kwargs) -> F:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    drawn.__doc__ = draw.__doc__
    return drawn


def new_figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (4.6, 2.7)) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes (rows, columns), without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def success_map() -> Any:
    """From no success to full success."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("success", [LOW, HIGH])


def save_figure(figure: Figure, stem: Path, formats: Sequence[str], *, dpi: int = 300) -> list[Path]:
    """Write `<stem>.<format>` for each, whole or not at all. Raises `ConfigError` for a format that cannot be drawn."""
    import matplotlib

    known = figure.canvas.get_supported_filetypes()
    written = []
    for name in formats:
        if name not in known:
            raise ConfigError(f"format {name!r}: expected one of {', '.join(sorted(known))}")
        path = stem.with_name(f"{stem.name}.{name}")
        with atomic_path(path) as temporary, matplotlib.rc_context(_STYLE):
            figure.savefig(temporary, format=name, dpi=dpi)
        written.append(path)
    return written
