"""Tables as text: CSV files, and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.atomic import write_text


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table atomically; a row without a column leaves the cell empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows' cells as a table in Markdown, the first row as its header."""
    header, *others = rows
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [header, ["---"] * len(header), *others])
