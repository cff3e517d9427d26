"""A lock between processes on one or several machines that needs nothing of the file system but links and renames.

File locks are not to be had on every NFS, and one held by a machine that died can stay for ever. A lease is a file that
its holder changes every few seconds. Whoever wants it takes it over if the holder was a process of this machine that is
gone, or, for another machine, if the file has not changed for a while by the waiter's own monotonic clock: clocks that
jump or differ between machines do not matter.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
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
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of Lustre without flock, of NFS without a lock daemon


class LeaseHeldError(Exception):
    """Another process has the lease; the message says which."""


class Lease:
    """`with Lease(path):` holds it. Raises `LeaseHeldError` where another process does.

    A holder that finds its lease taken (its machine was suspended for longer than `seconds`) ends as on Ctrl-C.
    """

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self.path, self.seconds = path, seconds
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "start": _process_start(os.getpid())}
        self._file = -1
        self._ended = threading.Event()

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            seen = self._read()
            if seen is not None and not self._is_dead(seen):
                owner = _owner(seen)
                raise LeaseHeldError(f"process {owner.get('pid', '?')} on {owner.get('host', '?')}")
            if seen is not None:
                self._remove(seen)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _create(self) -> bool:
        """A link is made by one process alone, on NFS too, and the file is whole when it appears."""
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        self._file = os.open(temporary, os.O_CREAT | os.O_RDWR, 0o644)
        self._write(0)
        try:
            os.link(temporary, self.path)
            return True
        except FileExistsError:
            os.close(self._file)
            return False
        finally:
            temporary.unlink()

    def _write(self, beat: int) -> None:
        # Always the same length, into the file that was opened: a lease taken over meanwhile is another file.
        os.pwrite(self._file, json.dumps({**self.owner, "beat": f"{beat:012d}"}).encode() + b"\n", 0)
        os.fsync(self._file)

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def _is_dead(self, seen: bytes) -> bool:
        owner = _owner(seen)
        if owner.get("host") == self.owner["host"]:
            return _process_start(owner.get("pid", -1)) != owner.get("start")
        log.info("%s: held on %s; waiting %.0f s for a sign of life", self.path, owner.get("host"), self.seconds)
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            time.sleep(self.seconds / (2 * _BEATS_PER_LEASE))
            if self._read() != seen:
                return False
        return True

    def _remove(self, seen: bytes) -> None:
        """Take the dead holder's file away, unless another process was faster: then that one's is put back."""
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(aside)
            if aside.read_bytes() != seen:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _is_mine(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self.seconds / _BEATS_PER_LEASE):
            beat += 1
            try:
                self._write(beat)
            except OSError as error:  # a full disk or a file system that is away for a while
                log.warning("%s: cannot be renewed (%s)", self.path, error)
                continue
            if not self._is_mine() and not self._ended.is_set():
                log.error("%s: taken over by another process; stopping", self.path)
                interrupt.end_this_process()
                return


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
            _enter_when_free(stack, Lease(folder / ".lease", seconds))
        yield


def _enter_file_lock(stack: contextlib.ExitStack, folder: Path) -> None:
    """Who holds the lock is in a file beside it, to be told to people: the lock itself does not say."""
    lock, holder = filelock.FileLock(folder / ".lock", fallback_to_soft=False), folder / ".holder"
    try:
        stack.enter_context(lock.acquire(blocking=False))
    except filelock.Timeout:
        try:
            who = holder.read_text(encoding="utf-8").strip()
        except OSError:
            who = ""
        _tell_waiting(folder, who or "another process")
        stack.enter_context(lock)
    # A disk that is full must not keep anyone from working.
    with contextlib.suppress(OSError):
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        stack.callback(holder.unlink, missing_ok=True)


def _enter_when_free(stack: contextlib.ExitStack, lease: Lease) -> None:
    told = False
    while True:
        try:
            stack.enter_context(lease)
            return
        except LeaseHeldError as error:
            if not told:
                _tell_waiting(lease.path.parent, str(error))
            told = True
            time.sleep(lease.seconds / _BEATS_PER_LEASE)


def _tell_waiting(folder: Path, who: str) -> None:
    log.info("%s: %s is at work here; waiting until it is done", folder, who)


def is_held(path: Path, seconds: float = 60.0) -> bool:
    """Whether a lease seems to be held, to be told to people: clocks of two machines may differ, nothing waits here."""
    try:
        owner, age = _owner(path.read_bytes()), time.time() - path.stat().st_mtime
    except OSError:
        return False
    if owner.get("host") == socket.gethostname():
        return _process_start(owner.get("pid", -1)) == owner.get("start")
    return age < 2 * seconds


def _owner(content: bytes) -> dict[str, object]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError):
        return {}


def _process_start(pid: int) -> str:
    """When a process of this machine started, in clock ticks since boot, with the boot's name; empty if it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if after_name[0] == "Z" else f"{boot}:{after_name[19]}"
