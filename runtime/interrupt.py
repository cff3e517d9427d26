"""How a process is stopped: at once, as Ctrl-C does, or on request between two steps of a computation."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from types import FrameType

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


class Stopped(KeyboardInterrupt):
    """The process was told to end by a signal other than Ctrl-C's; the message names it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"told to end by {signal.Signals(signum).name}")
        self.signum = signum


_TOLD_TO_END = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `Stopped`, so that jobs and workers are ended and what is open is closed.

    Only the first one does: a terminal that closes sends SIGHUP twice, and the second must not cut off what the first
    has begun. A signal that is ignored (SIGHUP under nohup) stays so. In another thread than the main one this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in _TOLD_TO_END}
    heard = [signum for signum, handler in before.items() if handler == signal.SIG_DFL]

    def stop(signum: int, _frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        _leave_lost_terminal()
        raise Stopped(signum)

    for signum in heard:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in heard:
            signal.signal(signum, before[signum])


def _leave_lost_terminal() -> None:
    """Output to a terminal that was closed is an error each time, which would hide why the process ends: drop it."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def end_this_process() -> None:
    """From any thread: end as Ctrl-C does, or as SIGTERM does where Ctrl-C is ignored (`python ... &` in a script)."""
    heeds_ctrl_c = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    os.kill(os.getpid(), signal.SIGINT if heeds_ctrl_c else signal.SIGTERM)


@contextlib.contextmanager
def left_to_parent() -> Iterator[None]:
    """Processes started within ignore what a terminal sends to all: Ctrl-C and its end are for the parent to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
