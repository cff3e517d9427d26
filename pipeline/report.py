"""The run's page: a self-contained HTML file with what is being done, success per task, curves and pictures."""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from pipeline import tables
from pipeline.pictures import film_strip
from pipeline.stages import policy_folder
from runtime.atomic import write_text
from runtime.config import to_dict
from runtime.errors import UserError, one_line
from runtime.logs import duration
from runtime.metrics import read_metrics
from runtime.provenance import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.loop import Loop

log = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_STRIPS = 3


def report_file(loop: Loop) -> Path:
    return loop.folder / "report.html"


def write_report(loop: Loop, *, pictures: bool = False, failure: str = "") -> None:
    """Write the page for the present state; with `pictures` also film strips of the best held-out policies.

    `failure` is why the run stopped before its end.
    """
    state = loop.state
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    rows = _success_rows(loop)
    page = template.render(
        title=loop.config.run_name,
        outcome=state.outcome,
        failure=failure,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        iterations=[it.index for it in state.iterations],
        tests=[row for row in rows if row["kind"] == "held out"],
        middles=[row for row in rows if row["kind"] == "middle"],
        train=[task.name for task in loop.tasks.train],
        averages=tables.final_rows(loop)[-1],
        solved=sum(row["best"] >= loop.config.success_threshold for row in rows if row["kind"] == "held out"),
        threshold=loop.config.success_threshold,
        history=_history(loop),
        loss_curves=_image(_loss_figure(loop)),
        success_curves=_image(_policy_figure(loop)),
        strips=_strips(loop) if pictures else [],
        config=json.dumps(to_dict(loop.config.identity), indent=1),
        provenance=provenance(),
    )
    write_text(report_file(loop), page)
    log.info("report: %s", report_file(loop))


def _success_rows(loop: Loop) -> list[dict[str, Any]]:
    """One row per generated task: success per iteration with counts, and whether and when its set was accepted."""
    accepted = {task: i for i, tasks in loop.state.accepted().items() for task in tasks}
    rows = []
    for task in loop.tasks.generated:
        cells = []
        for it in loop.state.iterations:
            rate = it.rate(task)
            scores = it.scores.get(task, {}).values()
            count = f"{sum(s.solved for s in scores)}/{sum(s.trials for s in scores)}" if scores else ""
            cells.append({"rate": None if rate is None else float(rate), "count": count})
        best = loop.state.best(task)
        rows.append(
            {
                "task": task.name,
                "kind": "held out" if task in loop.tasks.test else "middle",
                "cells": cells,
                "best": float(best[0]) if best else 0.0,
                "accepted": accepted.get(task),
            }
        )
    return rows


def _history(loop: Loop) -> list[dict[str, Any]]:
    """One row per iteration: pool, threshold, verdicts, time."""
    rows = []
    for it in loop.state.iterations:
        selection = it.selection
        rows.append(
            {
                "index": it.index,
                "targets": len(it.targets),
                "sources": sum(len(tasks) for tasks in it.sources.values()),
                "phase": it.phase or "all sources",
                "threshold": selection.threshold.value if selection else loop.state.threshold.value,
                "reduced_from": selection.reduced_from if selection else None,
                "good": len(selection.good) if selection else None,
                "failed": len(it.failed),
                "seconds": {stage: duration(seconds) for stage, seconds in it.seconds.items()},
            }
        )
    return rows


def _new_figure() -> tuple[Figure, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 3.2), dpi=110, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _loss_figure(loop: Loop) -> Figure:
    figure, axes = _new_figure()
    for it in loop.state.iterations:
        folder = loop.generator_stage(it).checkpoint.parent
        rows = read_metrics(folder / "metrics.jsonl")
        if rows:
            axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], label=f"iteration {it.index}")
    axes.set(xlabel="training step", ylabel="denoising loss", yscale="log")
    if axes.lines:
        axes.legend(frameon=False)
    return figure


def _policy_figure(loop: Loop) -> Figure:
    """Success during the training of each held-out task's policy, in the task's best iteration."""
    figure, axes = _new_figure()
    for task in loop.tasks.test:
        best = loop.state.best(task)
        if best is None:
            continue
        seeds = loop.state.iterations[best[1]].scores[task]
        model = loop.config.model_name(best[1])
        folder = policy_folder(loop.paths.results_path, best[1], model, task, min(seeds))
        rows = read_metrics(folder / "metrics.jsonl")
        label = f"{task.object} {task.obstacle} {task.objective}"
        axes.plot([row["step"] for row in rows], [row["success_rate"] for row in rows], marker="o", ms=3, label=label)
    axes.set(xlabel="gradient step (TD3+BC)", ylabel="success", ylim=(-0.03, 1.03))
    if axes.lines:
        axes.legend(frameon=False, fontsize=7)
    return figure


def _image(figure: Figure) -> str:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _strips(loop: Loop) -> list[dict[str, str]]:
    """Film strips of the best policies of the held-out tasks that were solved best."""
    ranked = [(task, loop.state.best(task)) for task in loop.tasks.test]
    ranked = [(task, best) for task, best in ranked if best and best[0] > 0]
    ranked.sort(key=lambda item: -item[1][0])
    strips = []
    for task, (rate, iteration) in ranked[:_STRIPS]:
        seeds = loop.state.iterations[iteration].scores[task]
        seed = max(seeds, key=lambda s: seeds[s].rate)
        model = loop.config.model_name(iteration)
        folder = policy_folder(loop.paths.results_path, iteration, model, task, seed)
        try:
            picture, solved = film_strip(task, folder, loop.config.policy, seed)
        except UserError as error:
            log.warning("no pictures of %s: %s", task, one_line(error))
            continue
        caption = f"{task}: iteration {iteration}, success {float(rate):.2f}; this episode was "
        caption += "solved" if solved else "not solved"
        strips.append({"png": base64.b64encode(picture).decode(), "caption": caption})
    return strips
