"""Metrics of a run as a file, one JSON object per line: who writes it and who reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.atomic import parse_json, write_text
from runtime.wandb_sink import WandbSink


class MetricsWriter:
    """Appends rows to `<folder>/metrics.jsonl`, and to W&B where that is asked for (`runtime.wandb_sink`).

    A run that resumes from step S passes `resume_from=S`: rows after S, and a half-written last line, are dropped.
    """

    def __init__(self, folder: Path, *, resume_from: int | None = None) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [] if resume_from is None else [row for row in read_metrics(self.path) if row["step"] <= resume_from]
        write_text(self.path, "".join(map(_line, kept)))
        self.wandb = WandbSink(folder)

    def log(self, *, step: int, **values: float | int | str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))
        self.wandb.log(step, values)


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON, which has no NaN: a value that is not finite is null."""
    lost = {name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    return json.dumps({name: None if name in lost else value for name, value in row.items()}) + "\n"


def read_metrics(path: Path, *columns: str) -> list[dict[str, Any]]:
    """The rows of a metrics file that have a number in each of these columns, up to the first line that is no row.

    Metrics are there to be looked at: an absent, foreign or half-written file gives the rows that it has, no error.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            row = parse_json(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            break
        rows.append(row)
    return [row for row in rows if all(type(row.get(column)) in (int, float) for column in columns)]
