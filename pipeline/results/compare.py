"""Methods side by side: success per held-out task, learning curves with bands, tables."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.results.solving import write_steps
from pipeline.stages.score_table import COLUMNS, LOOP, SCORES_FILE, ScoreRow, best_step, read_score_table
from runtime.atomic import atomic_path, write_text
from runtime.errors import ConfigError, DataError, TaskError, distinct
from runtime.metrics import markdown_table, write_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RESAMPLES = 2000
_SEED_COLUMN = re.compile(r"success_seed(\d+)")
_RUN_FOLDER = re.compile(r"[a-z][a-z0-9]*_(?P<task>[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*)__.*?__(?P<seed>\d+)(?=__|$)")
_AVERAGES = ("OVERALL_AVERAGE", "AVERAGE_BEST_RATE")
Curve = dict[int, float]
"""Environment steps -> success."""


@dataclass
class Method:
    """What is known of a method: success per task and seed (a method without seeds has one, 0), and its curves."""

    name: str
    success: dict[str, dict[int, float]] = field(default_factory=dict)
    curves: dict[str, dict[int, Curve]] = field(default_factory=dict)


def read_method(name: str, path: Path) -> Method:
    """Read a result of this project: a table, a folder of tables, a run's folder or a folder of runs.

    Known are `scores.csv`, which every method writes (the first method in it, or the one behind an @ after the path),
    the published tables of the loop (per seed, and the final one), of the multitask baselines and of sweeps, and the
    histories of online runs. Raises `DataError` where there is none of them, and where two tell of the same task and
    seed: they are then of more than one method.
    """
    method = Method(name)
    path, wanted = _with_method(path)
    if wanted is not None:
        _read_scores(method, path if path.is_file() else path / SCORES_FILE, wanted)
        files = []
    else:
        files = [path] if path.is_file() else _tables_in(path)
    for file in files:
        _read_table(method, file)
    method.success = {task: seeds for task, seeds in method.success.items() if seeds}
    if not method.success and not method.curves:
        raise DataError(f"{path}: no table of results and no eval_history.csv of a run in it")
    # Of an online run without a table the last evaluation counts.
    for task, seeds in method.curves.items():
        for seed, curve in seeds.items():
            method.success.setdefault(task, {}).setdefault(seed, curve[max(curve)])
    return method


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such file or folder")
    finals = sorted(folder.glob("final_test_task_table_iter*.csv"), key=lambda p: int(re.findall(r"\d+", p.name)[-1]))
    if (folder / SCORES_FILE).exists():
        return [folder / SCORES_FILE]
    if finals:
        return finals[-1:]
    baselines = sorted(folder.glob("*_baseline_results.csv"))
    found = baselines or sorted(folder.glob("results.csv")) + sorted(folder.glob("eval_history.csv"))
    return found or sorted(folder.glob("*/eval_history.csv"))


def _read_table(method: Method, path: Path) -> None:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = list(rows[0]) if rows else []
        if tuple(columns) == COLUMNS:
            _read_scores(method, path)
            return
        if "global_step" in columns:
            _read_curves(method, rows, path)
            return
        for row in rows:
            task = (
                row["task"]
                if "task" in row
                else "_".join(row[name] for name in itertools.takewhile(_names_an_axis, columns))
            )
            if task in _AVERAGES:
                continue
            known = method.success.setdefault(task, {})
            for seed, value in _success_of(row).items():
                if seed in known:
                    raise DataError(f"{path}: {task} with seed {seed} is there twice, expected results of one method")
                known[seed] = value
    except KeyError as error:
        raise DataError(f"{path}: not a table of results of this project, it has no column {error}") from error
    except (ValueError, TypeError, TaskError, csv.Error) as error:
        raise DataError(f"{path}: not a table of results of this project ({error})") from error


def _with_method(path: Path) -> tuple[Path, str | None]:
    """`PATH@METHOD` apart, where no file has that name."""
    head, at, wanted = str(path).rpartition("@")
    return (Path(head), wanted) if at and head and not path.exists() else (path, None)


def _read_scores(method: Method, path: Path, wanted: str | None = None) -> None:
    """Of the loop the best iteration counts, of anything else the last step; several steps of it are a curve."""
    rows = read_score_table(path)
    names = list(dict.fromkeys(row.method for row in rows))
    if wanted is not None and wanted not in names:
        raise DataError(f"{path}: has no method {wanted!r}, there are {', '.join(names) or 'none'}")
    chosen = [row for row in rows if row.method == (names[0] if wanted is None else wanted)]
    tasks: dict[str, list[ScoreRow]] = {}
    for row in chosen:
        tasks.setdefault(row.task, []).append(row)
    for task, own in tasks.items():
        if own[0].method.split()[0] == LOOP:
            best = best_step(own)
            method.success[task] = {row.seed: float(row.rate) for row in own if row.step == best}
            continue
        curves: dict[int, Curve] = {}
        for row in own:
            curves.setdefault(row.seed, {})[row.step] = float(row.rate)
        method.success[task] = {seed: curve[max(curve)] for seed, curve in curves.items()}
        if any(len(curve) > 1 for curve in curves.values()):
            method.curves[task] = curves


def _names_an_axis(column: str) -> bool:
    """The first columns of an iteration's table are the axes of its tasks."""
    return not column.startswith("score_seed")


def _read_curves(method: Method, rows: Sequence[Mapping[str, str]], path: Path) -> None:
    curves: dict[tuple[str, int], Curve] = {}
    for row in rows:
        curve, step = curves.setdefault(_of_run(row, path), {}), int(float(row["global_step"]))
        if step in curve:
            raise DataError(f"{path}: two evaluations at step {step} of one run")
        curve[step] = _rate(row["success_rate"])
    for (task, seed), curve in curves.items():
        known = method.curves.setdefault(task, {})
        if seed in known:
            raise DataError(
                f"{path}: a second run of {task} with seed {seed}; expected one method's runs, which are a folder of "
                "their own or a sweep's tables"
            )
        known[seed] = curve


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"success {text}, expected 0 to 1")
    return value


def _of_run(row: Mapping[str, str], path: Path) -> tuple[str, int]:
    """Task and seed of a history's row: of a sweep's in the row, of a run's in its folder's name."""
    if "task" in row:
        return row["task"], int(row["seed"])
    match = _RUN_FOLDER.match(path.resolve().parent.name)
    if match is None:
        raise DataError(f"{path}: its folder's name does not tell task and seed, expected <family>_<task>__..__<seed>")
    return match["task"], int(match["seed"])


def _success_of(row: Mapping[str, str]) -> dict[int, float]:
    seeds = {int(m[1]): row[name] for name in row if (m := _SEED_COLUMN.fullmatch(name))}
    if not seeds:
        seeds = {0: row["best_rate"] if "best_rate" in row else row["success_rate"]}
    return {seed: _rate(value) for seed, value in seeds.items() if value != ""}


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % percentile-bootstrap interval of the mean over seeds, of values (seeds, ...); None for a single seed."""
    from scipy.stats import bootstrap

    if len(values) < 2:
        return None
    result = bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, axis=0, method="percentile", rng=np.random.default_rng(0)
    )
    return result.confidence_interval.low, result.confidence_interval.high


def aligned(curves: Mapping[int, Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (T,) and success (seeds, T): a seed keeps its value until its next evaluation, and after its last one."""
    steps = np.array(sorted({step for curve in curves.values() for step in curve}))
    steps = steps[steps >= max(min(curve) for curve in curves.values())]
    values = [[curve[max(s for s in curve if s <= step)] for step in steps] for curve in curves.values()]
    return steps, np.array(values)


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
    text = _write_table(methods, chosen, files[0])
    _save(files[2], lambda: _draw_success(methods, chosen))
    learned = [task for task in chosen if any(task in method.curves for method in methods)]
    if learned:
        files += [folder / "curves.png", folder / "steps.csv"]
        _save(files[-2], lambda: _draw_curves(methods, chosen))
        text += "\n" + write_steps(methods, learned, files[-1])
    write_text(files[1], text)
    return files


def _columns(name: str) -> list[str]:
    """A method's in the table."""
    return [name, *(f"{name}_{what}" for what in ("low", "high", "seeds"))]


def _write_table(methods: Sequence[Method], tasks: Sequence[str], path: Path) -> str:
    """Write the success of methods on tasks, and give it as Markdown."""
    columns = ["task"]
    for method in methods:
        columns += _columns(method.name)
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


def _save(path: Path, draw) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    draw()
    with atomic_path(path) as temporary:
        pyplot.savefig(temporary, format="png")
    pyplot.close()


def parse_methods(items: Sequence[str]) -> list[Method]:
    """`NAME=PATH` each. Raises `ConfigError` for none, an item of another form or a name that tables cannot hold."""
    if not items:
        raise ConfigError("--results: expected at least one NAME=PATH, for example loop=results/loops/...")
    taken = {"task"}
    methods: list[Method] = []
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or not path:
            raise ConfigError(f"--results {item!r}: expected NAME=PATH, for example loop=results/loops/...")
        if name in [method.name for method in methods]:
            raise ConfigError(f"--results {item!r}: the name {name} is given twice")
        if taken & set(_columns(name)):
            raise ConfigError(f"--results {item!r}: the table has a column {name} already, expected another name")
        if "|" in name or not name.isprintable():
            raise ConfigError(f"--results {item!r}: expected a name of printable characters without |")
        taken |= set(_columns(name))
        methods.append(read_method(name, Path(path).expanduser()))
    return methods
