"""Figures and tables of what is inside a generator: attention maps and intervention matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion.attention import AttentionMaps
from diffusion.interventions import NOISE, Swap, axis_matrix
from pipeline.report.style import new_figure, styled
from runtime.tables import write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def token_names(layout: Any) -> list[str]:
    """Short names of the tokens: `s object`, `s' object`, ..."""
    return [token.name.replace("next_", "s' ").replace("s_", "s ").replace("proprioception", "robot")
            for token in layout.tokens]  # fmt: skip


def _heat(axes: Axes, matrix: np.ndarray, *, most: float, colours: str = "Blues", numbers: bool = False) -> Any:
    image = axes.imshow(matrix, vmin=-most if colours == "RdBu_r" else 0.0, vmax=most, cmap=colours, aspect="equal")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if numbers:
        for (y, x), value in np.ndenumerate(matrix):
            light = abs(value) > 0.6 * most
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=6, color="white" if light else "#1d2433")
    return image


def _label(axes: Axes, names: Sequence[str], *, rows: bool, columns: bool, size: float = 6.0) -> None:
    axes.set_xticks(range(len(names)), names if columns else [], rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)) if rows else [], names if rows else [], fontsize=size)
    if not columns:
        axes.set_xticks([])


@styled
def attention_panels(maps: np.ndarray, names: Sequence[str], down: Sequence[str], across: Sequence[str]) -> Figure:
    """A panel per row and column of maps (rows, columns, T, T): queries down, keys across, all on one scale."""
    rows, columns = maps.shape[:2]
    figure, axes = new_figure(rows, columns, size=(1.35 * columns + 1.3, 1.35 * rows + 1.0))
    most = float(np.quantile(maps, 0.998))
    for (y, x), panel in np.ndenumerate(axes):
        image = _heat(panel, maps[y, x], most=most)
        _label(panel, names, rows=x == 0, columns=y == rows - 1, size=5)
        if y == 0:
            panel.set_title(across[x], fontsize=7.5)
        if x == 0:
            panel.set_ylabel(down[y], fontsize=7.5)
    figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.5, label="attention (rows sum to 1)")
    return figure


@styled
def attention_by_element(maps: AttentionMaps) -> Figure:
    """How the maps of the tasks with an element differ from the mean of all tasks, averaged over all else."""
    by_element = {key: value.mean(axis=(0, 1, 2)) for key, value in maps.by_element().items()}
    every = maps.mean("task", "sigma", "layer", "head")
    axes_shown = [a for a in dict.fromkeys(axis for axis, _ in by_element) if sum(k[0] == a for k in by_element) > 1]
    wide = max((sum(key[0] == axis for key in by_element) for axis in axes_shown), default=1)
    names = token_names(maps.layout)
    figure, panels = new_figure(len(axes_shown) + 1, wide, size=(1.6 * wide + 1.6, 1.75 * (len(axes_shown) + 1) + 0.8))
    for panel in panels.flat:
        panel.set_visible(False)
    first = panels[0, 0]
    first.set_visible(True)
    figure.colorbar(_heat(first, every, most=every.max()), ax=first, shrink=0.8)
    _label(first, names, rows=True, columns=True, size=5)
    first.set_title("mean of all tasks", fontsize=7.5)
    most = max((np.abs(value - every).max() for value in by_element.values()), default=1.0) or 1.0
    image = None
    for y, axis in enumerate(axes_shown, 1):
        for x, element in enumerate(e for a, e in by_element if a == axis):
            panel = panels[y, x]
            panel.set_visible(True)
            image = _heat(panel, by_element[axis, element] - every, most=most, colours="RdBu_r")
            _label(panel, names, rows=x == 0, columns=y == len(axes_shown), size=5)
            panel.set_title(f"{axis} {element}", fontsize=7.5)
    if image is not None:
        figure.colorbar(image, ax=panels[1:].ravel().tolist(), shrink=0.5, label="difference from the mean")
    return figure


def attention_rows(maps: AttentionMaps) -> Iterator[dict[str, Any]]:
    """Rows of `attention.csv`: mean over tasks of every layer, head and noise level."""
    names = [token.name for token in maps.layout.tokens]
    mean = maps.mean("task")
    for (s, layer, head, q, k), weight in np.ndenumerate(mean):
        yield {"sigma": maps.sigmas[s], "layer": layer, "head": head, "query": names[q], "key": names[k],
               "weight": f"{weight:.5f}"}  # fmt: skip


def element_rows(maps: AttentionMaps) -> Iterator[dict[str, Any]]:
    """Rows of `attention_by_element.csv`: mean over the tasks with an element and over heads."""
    names = [token.name for token in maps.layout.tokens]
    for (axis, element), value in maps.by_element().items():
        for (s, layer, q, k), weight in np.ndenumerate(value.mean(axis=2)):
            yield {"axis": axis, "element": element, "sigma": maps.sigmas[s], "layer": layer, "query": names[q],
                   "key": names[k], "weight": f"{weight:.5f}"}  # fmt: skip


def write_attention(maps: AttentionMaps, out: Path) -> None:
    write_csv(out / "attention.csv", ["sigma", "layer", "head", "query", "key", "weight"], attention_rows(maps))
    columns = ["axis", "element", "sigma", "layer", "query", "key", "weight"]
    write_csv(out / "attention_by_element.csv", columns, element_rows(maps))


def attention_figures(maps: AttentionMaps) -> dict[str, Figure]:
    """File name -> figure: layers by noise levels, layers by heads, elements of the axes."""
    names = token_names(maps.layout)
    layers = [f"layer {i}" for i in range(maps.weights.shape[2])]
    heads = [f"head {i}" for i in range(maps.weights.shape[3])]
    by_noise = maps.mean("task", "head").swapaxes(0, 1)
    levels = [f"$\\sigma$ = {sigma:g}" for sigma in maps.sigmas]
    return {
        "attention_by_noise": attention_panels(by_noise, names, layers, levels),
        "attention_by_head": attention_panels(maps.mean("task", "sigma"), names, layers, heads),
        "attention_by_element": attention_by_element(maps),
    }


@styled
def id_figure(swaps: Sequence[Swap], layout: Any) -> Figure:
    """Mean change of every token by the axis of which the element was exchanged."""
    matrix, names = axis_matrix(swaps), token_names(layout)
    values = np.stack(list(matrix.values()))
    figure, ((axes,),) = new_figure(size=(5.6, 0.42 * len(values) + 1.5))
    image = _heat(axes, values, most=float(values.max()), numbers=True)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(
        range(len(values)), ["other noise" if axis == NOISE else f"another {axis}" for axis in matrix], fontsize=7
    )
    axes.set_xlabel("change of the generated token (standard deviations)")
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


@styled
def token_figure(effects: np.ndarray, layout: Any, sigmas: Sequence[float]) -> Figure:
    """A matrix per noise level: the row's token is exchanged, the column's estimate changes."""
    names = token_names(layout)
    figure, (row,) = new_figure(1, len(effects), size=(2.3 * len(effects) + 1.2, 3.1))
    off = effects[:, ~np.eye(len(names), dtype=bool)]
    most = float(off.max())
    for panel, effect, sigma in zip(row, effects, sigmas, strict=True):
        image = _heat(panel, np.where(np.eye(len(names), dtype=bool), np.nan, effect), most=most)
        _label(panel, names, rows=panel is row[0], columns=True)
        panel.set_title(f"$\\sigma$ = {sigma:g}")
    row[0].set_ylabel("exchanged token")
    figure.colorbar(image, ax=row.tolist(), shrink=0.8, label="change of the estimate (std)")
    return figure


def write_interventions(
    swaps: Sequence[Swap], effects: np.ndarray, layout: Any, sigmas: Sequence[float], out: Path
) -> None:
    """`swap_ids.csv` with every exchange, `swap_ids_matrix.csv` by axis, `swap_tokens.csv` by noise level."""
    names = [token.name for token in layout.tokens]

    def cells(change: np.ndarray) -> Mapping[str, str]:
        return {name: f"{value:.4f}" for name, value in zip(names, change, strict=True)}

    rows = [{"axis": s.axis, "from": s.source, "to": s.target, **cells(s.change)} for s in swaps]
    write_csv(out / "swap_ids.csv", ["axis", "from", "to", *names], rows)
    matrix = [{"axis": axis, **cells(change)} for axis, change in axis_matrix(swaps).items()]
    write_csv(out / "swap_ids_matrix.csv", ["axis", *names], matrix)
    tokens = [
        {"sigma": sigma, "exchanged": names[row], **cells(effects[i, row])}
        for i, sigma in enumerate(sigmas)
        for row in range(len(names))
    ]
    write_csv(out / "swap_tokens.csv", ["sigma", "exchanged", *names], tokens)
