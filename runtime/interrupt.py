"""A request to stop that long computations honour between two steps, after saving where they are."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_signal: int | None = None


class Interrupted(BaseException):
    """A computation has saved its state and stopped because it was asked to. Not an `Exception`: it is no failure."""


def request(signum: int) -> None:
    global _signal
    _signal = signum


def requested() -> bool:
    return _signal is not None


def clear() -> None:
    global _signal
    _signal = None


@contextlib.contextmanager
def honoured(signum: int = signal.SIGTERM) -> Iterator[None]:
    """Within, the signal is a request; what was done about it before comes back afterwards. For the main thread."""
    before = signal.signal(signum, lambda received, _frame: request(received))
    try:
        yield
    finally:
        signal.signal(signum, before)
        clear()
