"""Learning curves as pictures; as a command, those of several runs in one, with a CSV beside it.

Example:
    python -m dsrl.curves --runs checkpoints/dsrl/seed0 checkpoints/dsrl/seed1 --output curves.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from runtime.atomic import atomic_path
from runtime.checks import distinct
from runtime.cli import parse_flags
from runtime.errors import ConfigError, DataError
from runtime.main import run_main
from runtime.metrics import read_metrics
from runtime.tables import write_csv

_COLUMNS = (
    "run",
    "env_steps",
    "rate",
    "mean_rate",
    "sampled_rate",
    "base_rate",
    "mean_decisions",
    "online_rate",
    "gradient_steps",
    "seconds",
)


def draw_steering(folder: Path, title: str) -> Path:
    """`curve.png` of a steering run's `metrics.jsonl`: success by control steps, beside the cloned policy's."""
    rows = _rows(folder)
    figure, axes = _axes(title)
    steps = [row["env_steps"] for row in rows]
    axes.plot(steps, [row["mean_rate"] for row in rows], marker="o", label="steered (mean), fixed episodes")
    axes.plot(steps, [row["sampled_rate"] for row in rows], marker=".", label="steered (samples), fixed episodes")
    online = [(row["env_steps"], row["online_rate"]) for row in rows if row["online_episodes"]]
    if online:
        axes.plot(*zip(*online, strict=True), linestyle=":", label="steered (samples), last 50 training episodes")
    axes.axhline(rows[0]["base_rate"], color="grey", linestyle="--", label="cloned policy, the same fixed episodes")
    return _write(figure, axes, folder / "curve.png")


def draw_runs(folders: list[Path], path: Path, title: str) -> Path:
    """One curve for each run's fixed episodes, dashed what its cloned policy solves of them; `path` with .csv too."""
    figure, axes = _axes(title)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise ConfigError(f"{path}: expected a picture's name, ending in one of {', '.join(sorted(known))}")
    table = []
    for folder in folders:
        rows = _rows(folder)
        line = axes.plot([row["env_steps"] for row in rows], [row["rate"] for row in rows], marker="o")[0]
        line.set_label(f"{folder.name}, steered")
        axes.axhline(rows[0]["base_rate"], color=line.get_color(), linestyle="--", label=f"{folder.name}, cloned")
        table += [{"run": folder.name, **{name: row.get(name) for name in _COLUMNS[1:]}} for row in rows]
    write_csv(path.with_suffix(".csv"), _COLUMNS, table)
    return _write(figure, axes, path)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        raise DataError(f"{folder / 'metrics.jsonl'}: no curve of a steering run")
    return rows


def _axes(title: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.set(xlabel="control steps of training", ylabel="solved", ylim=(-0.02, 1.02), title=title)
    return figure, axes


def _write(figure: Any, axes: Any, path: Path) -> Path:
    from matplotlib import pyplot as plt

    axes.legend(loc="lower right", fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return path


def main(runs: tuple[Path, ...], output: Path, title: str = "steering") -> None:
    """Draw the curves of several steering runs.

    Args:
        runs: folders of `dsrl.train_dsrl`
        output: picture; the figures go beside it as CSV
        title: of the picture
    """
    distinct("--runs", runs)
    print(draw_runs(list(runs), output, title))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
