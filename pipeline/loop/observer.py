"""Who looks on while a loop runs: tables, page. The loop knows none of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from pipeline.loop.run import Run


class Observer:
    """Each method is called with the run as it is at that moment, and does nothing unless it is overridden."""

    def claim(self, run: Run) -> None:
        """Before anything is written. Raises `StateError` where the observer's files belong to another run."""

    def opened(self, run: Run) -> None:
        """The state of an earlier process, if there is one, has been read."""

    def watch(self, current: Callable[[], Run]) -> AbstractContextManager[object]:
        """Entered before the data are prepared, left when nothing runs any more."""
        return contextlib.nullcontext()

    def begun(self, run: Run) -> None:
        """The data are there."""

    def judged(self, run: Run) -> None:
        """An iteration is complete."""

    def ended(self, run: Run) -> None:
        """The run is over, and why is in its state."""

    def stopped(self, run: Run, reason: str) -> None:
        """The process ends before the run is over."""
