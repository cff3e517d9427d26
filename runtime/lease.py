"""Locks between processes on one or several machines that end with their holder.

A file system's lock goes with its process, but is not to be had on every NFS. A lease is a file that its holder touches
every few seconds. filelock's has the beats, the process' start and its namespace; here is what that lacks: an answer to
a second loop instead of a wait, a message that names the holder, the end of a holder that lost its lease, a holder
that outlives a file system that is away, and taking over where the file system cannot exchange two names (NFS, SMB).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import filelock

from runtime import interrupt

log = logging.getLogger(__name__)

_BEATS_PER_LEASE = 6
_LATEST = 1.25  # of a lease: without a beat for so long its holder is gone whatever its record says
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of Lustre without flock, of NFS without a lock daemon


class LeaseHeldError(Exception):
    """Another process has the lease; the message says which."""


class Lease:
    """`with Lease(path):` holds it. Raises `LeaseHeldError` where another process does.

    All processes give the same `seconds`. A holder of this machine that is gone is replaced at once, another one after
    `seconds` without a sign of life by the waiter's own clock: clocks that jump or differ do not matter. A holder that
    finds its lease taken (its machine was suspended for longer than that) ends itself as Ctrl-C does.
    """

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self.path, self.seconds = path, seconds
        self._beat_seconds = seconds / _BEATS_PER_LEASE
        self._lease = filelock.SoftFileLease(
            path,
            lease_duration=seconds,
            heartbeat_interval=self._beat_seconds,
            on_compromise=self._compromised,
            thread_local=False,
        )
        self._ended = threading.Event()

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._acquire():
            self._take_over()
        self._own = self.path.stat()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._lease.release()

    def _acquire(self) -> bool:
        # Another version or setting may have published a lease of another length: it is watched as any other.
        with contextlib.suppress(filelock.Timeout, filelock.LeaseSettingsMismatch):
            self._lease.acquire(blocking=False)
        return self._lease.is_locked

    def _take_over(self) -> None:
        """Wait for a sign of life of the holder, and take its place where there is none."""
        # Its number may be another process' by now: beats have to be there as well.
        owner = self._lease.owner
        here = owner is not None and owner.hostname == _this_machine() and _is_alive(owner.pid)
        if here and _age(self.path) < 2 * self._beat_seconds:
            raise LeaseHeldError(self._holder())
        log.info("%s: held by %s; waiting %.0f s for a sign of life", self.path, self._holder(), self.seconds)
        first, deadline = _state(self.path), time.monotonic() + _LATEST * self.seconds
        while not self._acquire():
            if first is None:
                first = _state(self.path)
            elif _state(self.path) not in (first, None):
                raise LeaseHeldError(self._holder())
            elif time.monotonic() > deadline:
                self._remove(first)
            else:
                time.sleep(self._beat_seconds / 2)

    def _holder(self) -> str:
        owner = self._lease.owner
        return f"process {owner.pid} on {owner.hostname}" if owner else "another process"

    def _remove(self, seen: tuple[int, ...]) -> None:
        """Take the dead holder's file away, unless another process was faster: then that one's is put back."""
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if _state(aside, renamed=True) != seen[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _compromised(self, loss: filelock.LeaseCompromise) -> None:
        """In filelock's thread, which beats no more."""
        if loss.reason == "refresh-failed":
            log.warning("%s: cannot be renewed (%s)", self.path, loss.error)
            if self._ended_as_holder():
                return
        if not self._ended.is_set():
            log.error("%s: taken over by another process; stopping", self.path)
            interrupt.end_this_process()

    def _ended_as_holder(self) -> bool:
        """Beat on while the file system is away, until the lease is given back; False where another process has it."""
        while not self._ended.wait(self._beat_seconds):
            try:
                if not os.path.samestat(self.path.stat(), self._own):
                    return False
                os.utime(self.path)
            except FileNotFoundError:
                return False
            except OSError:
                continue
        return True


def _state(path: Path, *, renamed: bool = False) -> tuple[int, ...] | None:
    """What differs between two beats and two holders; None where there is no file. Renaming changes the last of it."""
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return None
    state = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return state[:-1] if renamed else state


@contextlib.contextmanager
def waiting_lock(folder: Path, *, seconds: float = 60.0) -> Iterator[None]:
    """Wait until no other process holds the folder's lock, then hold it; it goes with the process.

    It is the file system's lock or, where that has none, a `Lease` of so many seconds.
    """
    with contextlib.ExitStack() as stack:
        try:
            _enter_file_lock(stack, folder)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _enter_when_free(stack, folder / ".lease", seconds)
        yield


def _enter_file_lock(stack: contextlib.ExitStack, folder: Path) -> None:
    """Who holds the lock is in a file beside it, to be told to people: the lock itself does not say."""
    lock, holder = filelock.FileLock(folder / ".lock", fallback_to_soft=False), folder / ".holder"
    try:
        stack.enter_context(lock.acquire(blocking=False))
    except filelock.Timeout:
        try:
            who = holder.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            who = ""
        _tell_waiting(folder, who or "another process")
        stack.enter_context(lock)
    # A disk that is full must not keep anyone from working, nor leave a file behind.
    stack.callback(holder.unlink, missing_ok=True)
    with contextlib.suppress(OSError):
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")


def _enter_when_free(stack: contextlib.ExitStack, path: Path, seconds: float) -> None:
    told = False
    while True:
        try:
            stack.enter_context(Lease(path, seconds))
            return
        except LeaseHeldError as error:
            if not told:
                _tell_waiting(path.parent, str(error))
            told = True
            time.sleep(seconds / _BEATS_PER_LEASE)


def _tell_waiting(folder: Path, who: str) -> None:
    log.info("%s: %s is at work here; waiting until it is done", folder, who)


def is_held(path: Path, seconds: float = 60.0) -> bool:
    """Whether a lease of so many seconds seems to be held, to be told to people: nothing is waited for.

    A process of this machine has to be there; one elsewhere has touched the file within twice that time, by this clock.
    """
    owner = filelock.SoftFileLease(path).owner
    if owner is None:
        return False
    return _is_alive(owner.pid) if owner.hostname == _this_machine() else _age(path) < 2 * seconds


def _age(path: Path) -> float:
    """Seconds since a file was touched, as far as the clocks agree; infinite where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


@functools.cache
def _this_machine() -> str:
    """What leases call this machine and process namespace."""
    with tempfile.TemporaryDirectory() as folder, filelock.SoftFileLease(Path(folder) / "lease") as own:
        assert own.owner is not None  # it has just been taken
        return own.owner.hostname


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
