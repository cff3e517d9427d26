"""Log lines and progress that read well on a terminal and in a tee'd file."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_FORMAT = "%(asctime)s  %(message)s"


class _Stdout(logging.StreamHandler):  # type: ignore[type-arg]  # takes none in Python 3.10
    """Writes to what stdout is at the moment, so that lines appear above a bar instead of in it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout


def configure_logging(level: int = logging.INFO) -> None:
    """Plain lines with a time stamp on stdout, once per process."""
    handler = _Stdout()
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for talkative in ("submitit", "OpenGL"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def duration(seconds: float) -> str:
    """`42s`, `3m07s`, `2h05m`, `4d03h`."""
    seconds = max(0, round(seconds))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


class Progress:
    """Counts to `total`; says how far, how fast and how long still."""

    def __init__(self, total: int, label: str, *, done: int = 0, every_seconds: float = 10.0) -> None:
        self.total, self.label, self.every_seconds = total, label, every_seconds
        self.done = self._first = done
        self._start = self._last = time.monotonic()
        self._bar: tuple[Bar, TaskID] | None = None
        self._log = logging.getLogger("progress")

    def update(self, amount: int = 1, **figures: float | str) -> None:
        """Add to the count; figures appear beside it. A piped log gets a line every `every_seconds` at most."""
        self.done += amount
        now = time.monotonic()
        if self._bar is not None:
            self._bar[0].update(self._bar[1], completed=self.done, figures=_figures(figures))
        elif now - self._last >= self.every_seconds or (self.done >= self.total and self.every_seconds <= 0):
            self._last = now
            self._log.info("%s", self._line(now, figures))

    def _line(self, now: float, figures: dict[str, float | str]) -> str:
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        eta = duration(left) if left == left else "?"
        share = 100 * self.done // max(self.total, 1)
        counts = f"{self.done:,}/{self.total:,} ({share}%)"
        return f"{self.label}  {counts}  {rate:,.1f}/s  ETA {eta}  {_figures(figures)}".rstrip()


def _figures(figures: dict[str, float | str]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


@contextlib.contextmanager
def progress(
    total: int, label: str, *, done: int = 0, every_seconds: float = 10.0, shown: bool = True
) -> Iterator[Progress]:
    """A `Progress`: a rich bar where stdout is a terminal, else plain log lines (none with `every_seconds` inf).

    One of several processes that do the same is `shown`.
    """
    tracker = Progress(total, label, done=done, every_seconds=every_seconds if shown else math.inf)
    if not shown or not sys.stdout.isatty():
        yield tracker
        return
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("ETA"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[figures]}"),
    )
    with rich.Progress(*columns) as bar:
        tracker._bar = (bar, bar.add_task(label, total=total, completed=done, figures=""))
        yield tracker
