"""Learning curves as pictures."""

from __future__ import annotations

from pathlib import Path

from runtime.atomic import atomic_path
from runtime.metrics import read_metrics


def draw_steering(folder: Path, title: str) -> Path:
    """`curve.png` of a steering run's `metrics.jsonl`: success by control steps, beside the cloned policy's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = read_metrics(folder / "metrics.jsonl")
    steps = [row["env_steps"] for row in rows]
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(steps, [row["rate"] for row in rows], marker="o", label="steered, fixed episodes")
    online = [(row["env_steps"], row["online_rate"]) for row in rows if row["online_episodes"]]
    if online:
        axes.plot(*zip(*online, strict=True), linestyle=":", label="steered, last 50 training episodes")
    axes.axhline(rows[0]["base_rate"], color="grey", linestyle="--", label="cloned policy, the same fixed episodes")
    axes.set(xlabel="control steps of training", ylabel="solved", ylim=(-0.02, 1.02), title=title)
    axes.legend(loc="lower right")
    path = folder / "curve.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return path
