"""A request to stop that long computations honour between two steps, after saving where they are."""

from __future__ import annotations

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
