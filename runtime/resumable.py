"""A training that can be stopped, killed and continued: where it is stands in one file of its folder."""

from __future__ import annotations

import errno
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from runtime import interrupt
from runtime.checkpoint import BackgroundSaver, expect_finite, load_checkpoint, on_cpu, replace_torch
from runtime.errors import DataError, one_line
from runtime.metrics import MetricsWriter

log = logging.getLogger(__name__)

RESUME_FILE = "resume.pt"
_OF_THE_MACHINE = (OSError, MemoryError, torch.OutOfMemoryError)
"""What reading may meet that is no fault of the file: it is left as it is."""
_MOST_OF_REASON = 200  # characters


class ResumableRun(ABC):
    """The base of every training loop: when its state is saved, how it is taken up again, its metrics.

    A loop calls `restore` once everything is built, `between_steps` after a step, `save` where it has just written
    something down, and is used within `with`. What was saved is taken up only by a run of the same `key` (its inputs
    and settings) whose `FORMAT` is that of the file. A file that is damaged or other is named in one line, and the run
    begins anew. `FORMAT` says what `state_dict` gives, and gets another number where that changes.

    Of processes that train together the one that `writes` has the files. With `background` the computation goes on
    while its state is written.
    """

    FORMAT: ClassVar[str]
    NOT_LEARNED: ClassVar[tuple[str, ...]] = ()
    """What of the state may be infinite, as it comes from elsewhere than learning."""

    def __init__(
        self,
        folder: Path,
        *,
        key: str | None,
        checkpoint_seconds: float,
        writes: bool = True,
        background: bool = False,
    ) -> None:
        self.folder, self.key, self.checkpoint_seconds, self.writes = folder, key, checkpoint_seconds, writes
        folder.mkdir(parents=True, exist_ok=True)
        self.resume_file = folder / RESUME_FILE
        self._saver = BackgroundSaver(self.resume_file) if background else None
        self._saved = time.monotonic()
        self._metrics: MetricsWriter | None = None

    @property
    @abstractmethod
    def step(self) -> int:
        """The step that the run is at, as its metrics count: later rows of a run that was killed are dropped."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on: tensors and plain values, in mappings and lists."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be where `state_dict` was taken. May raise anything for another state."""

    def restore(self) -> bool:
        """Take up what an earlier run left, if there is anything; whether there was. Opens the metrics."""
        files = [path for path in self.resume_files() if path.exists()]
        restored = False
        for path in files:
            reason = self._take(path)
            restored = reason is None
            if restored:
                break
            if self.writes:
                log.warning("%s; %s", reason, "training starts anew" if path == files[-1] else "an older one is taken")
        if self.writes:
            self._metrics = MetricsWriter(self.folder, resume_from=self.step)
        return restored

    def resume_files(self) -> Sequence[Path]:
        """Where it may be continued from, the newest first."""
        return (self.resume_file,)

    def _take(self, path: Path) -> str | None:
        """Go on from a file; where that cannot be, the reason."""
        try:
            state = load_checkpoint(path)
        except DataError as error:
            cause = error.__cause__
            # torch looks for the end of a file that is cut off before its beginning.
            if isinstance(cause, _OF_THE_MACHINE) and getattr(cause, "errno", None) != errno.EINVAL:
                raise cause from None
            return str(error)
        if state.get("format") != self.FORMAT:
            return f"{path}: of another version or kind of training ({state.get('format')}, expected {self.FORMAT})"
        if state.get("key") != self.key:
            return f"{path}: made from other inputs or settings"
        state = {name: value for name, value in state.items() if name not in ("format", "key")}
        before = on_cpu(self.state_dict())
        try:
            _expect_like(state, before)
            self._expect_finite(state, str(path))
            self.load_state_dict(state)
        except _OF_THE_MACHINE:
            raise
        except Exception as error:  # whatever other contents lead to
            self.load_state_dict(before)
            return f"{path}: cannot be continued ({one_line(error)[:_MOST_OF_REASON]})"
        return None

    def write_metrics(self, *, step: int, **figures: float | int | str) -> None:
        if self._metrics is not None:
            self._metrics.log(step=step, **figures)

    @property
    def due(self) -> bool:
        """Whether `checkpoint_seconds` have gone by since the last save, and nothing is being written."""
        late = time.monotonic() - self._saved > self.checkpoint_seconds
        return late and not (self._saver is not None and self._saver.busy)

    def save(self, state: Mapping[str, Any] | None = None) -> None:
        """Write down where to continue: `state`, or the present one. Raises `DataError` where it is not finite."""
        if self.writes:
            contents = self.contents(state)
            if self._saver is not None:
                self._saver.save(contents)
            else:
                replace_torch(contents, self.resume_file)
        self._saved = time.monotonic()

    def contents(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a file holds that a run of this format and key can be continued from. Raises `DataError` as `save`."""
        state = self.state_dict() if state is None else state
        self._expect_finite(state, f"{self.folder}: what was learned up to step {self.step}")
        return {**state, "format": self.FORMAT, "key": self.key}

    def _expect_finite(self, state: Mapping[str, Any], what: str) -> None:
        expect_finite({name: value for name, value in state.items() if name not in self.NOT_LEARNED}, what)

    def between_steps(self, *, stop: bool | None = None) -> None:
        """Save when that is due. Where a stop was asked for (`stop`: by whom else than this process), save and leave.

        Raises `Interrupted`.
        """
        stop = interrupt.requested() if stop is None else stop
        if stop or self.due:
            self.save()
        self.leave_if_asked(stop=stop)

    def leave_if_asked(self, *, stop: bool | None = None) -> None:
        """Where what a loop has done is saved already. Raises `Interrupted` once everything is written."""
        if interrupt.requested() if stop is None else stop:
            if self._saver is not None:
                self._saver.wait()
            raise interrupt.Interrupted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saver is not None:
            self._saver.__exit__(kind, error, trace)


def discard(folder: Path) -> None:
    """Remove what a finished run could be continued from."""
    (folder / RESUME_FILE).unlink(missing_ok=True)


def _expect_like(found: Any, expected: Any, where: str = "") -> None:
    """Raises `DataError` unless `found` is built as `expected`, the state of a run that has not begun.

    Mappings have the same keys, leaves the same type. What is empty or None at first may be anything; sizes and the
    states of optimisers are checked by what they are loaded into.
    """
    if expected is None or (isinstance(expected, (Mapping, list, tuple)) and not len(expected)):
        return
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or set(found) != set(expected):
            keys = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise DataError(f"{where or 'it'} holds {keys}, expected {sorted(map(str, expected))}")
        if set(expected) == {"state", "param_groups"}:
            return
        for key, value in expected.items():
            _expect_like(found[key], value, f"{where}.{key}" if where else str(key))
    elif isinstance(expected, Tensor):
        if not isinstance(found, Tensor) or found.dtype != expected.dtype:
            raise DataError(f"{where} is {_kind(found)}, expected {_kind(expected)}")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)):
            raise DataError(f"{where} is {_kind(found)}, expected a list")
        if len(found) == len(expected):
            for i, (one, other) in enumerate(zip(found, expected, strict=True)):
                _expect_like(one, other, f"{where}.{i}")
    elif not isinstance(found, (int, float) if isinstance(expected, (int, float)) else type(expected)):
        raise DataError(f"{where} is {_kind(found)}, expected {_kind(expected)}")


def _kind(value: Any) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
