"""What is known of a method, read from any table of results of this project."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.results.curves import Curve
from pipeline.stages.score_table import COLUMNS, LOOP, SCORES_FILE, ScoreRow, best_step, read_score_table
from runtime.errors import ConfigError, DataError, TaskError

_SEED_COLUMN = re.compile(r"success_seed(\d+)")
_RUN_FOLDER = re.compile(r"[a-z][a-z0-9]*_(?P<task>[A-Za-z0-9.-]+(_[A-Za-z0-9.-]+)*)__.*?__(?P<seed>\d+)(?=__|$)")
_AVERAGES = ("OVERALL_AVERAGE", "AVERAGE_BEST_RATE")


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


def columns_of(name: str) -> list[str]:
    """A method's in a table of methods side by side."""
    return [name, *(f"{name}_{what}" for what in ("low", "high", "seeds"))]


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
        if taken & set(columns_of(name)):
            raise ConfigError(f"--results {item!r}: the table has a column {name} already, expected another name")
        if "|" in name or not name.isprintable():
            raise ConfigError(f"--results {item!r}: expected a name of printable characters without |")
        taken |= set(columns_of(name))
        methods.append(read_method(name, Path(path).expanduser()))
    return methods
