"""What every stage is: a picklable value that makes one artifact from files, under a lock, once.

The artifact's side file holds a key: a hash of the configuration and of the inputs' keys. A stage whose artifact is
there with the same key is done; one that was made otherwise is refused, not overwritten.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from runtime.atomic import artifact_info, commit_artifact, is_intact, json_text, read_json
from runtime.cpus import use_threads
from runtime.errors import DataError, StateError
from runtime.lease import waiting_lock
from runtime.provenance import provenance
from runtime.records import decode

T = TypeVar("T")

log = logging.getLogger(__name__)

_END_BYTES = 1 << 20


@dataclass(frozen=True)
class StageProgress:
    """How far a running stage is: for people, and as a fraction (0 while nothing is known)."""

    text: str
    fraction: float = 0.0


@dataclass(frozen=True)
class Stage(abc.ABC):
    """One artifact and how it is made. A subclass is a frozen dataclass; it says the five things that are abstract."""

    threads: int = field(default=0, kw_only=True)
    """Cores that torch computes with; 0: those that it takes by itself."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """In logs and messages; no other stage of a run has it."""

    @property
    @abc.abstractmethod
    def output(self) -> Path:
        """The artifact. What the stage keeps to continue from, and its lock, are in its folder."""

    @abc.abstractmethod
    def key(self) -> str:
        """Hash of all that the artifact follows from. Raises `DataError` where an input is missing."""

    @abc.abstractmethod
    def progress(self) -> StageProgress:
        """How far it is, by what it has written so far."""

    @abc.abstractmethod
    def work(self, key: str) -> None:
        """Make the artifact and its side file with this key; what an earlier call left behind is gone on from."""

    def __call__(self) -> None:
        """Make the artifact, unless it is there already. Raises `StateError` where it was made from other inputs."""
        with self.held() as key:
            if key is not None:
                use_threads(self.threads)
                self.work(key)

    def held(self) -> AbstractContextManager[str | None]:
        """Hold the stage's lock; gives its key, or None where it is done already.

        The lock goes with the process, so a job left over by a killed loop and its successor never write side by side.
        """
        return self._held()

    @contextlib.contextmanager
    def _held(self) -> Iterator[str | None]:
        folder = self.output.parent
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(folder):
            done = self.is_done()
            if done:
                log.info("%s: finished before", self.name)
            yield None if done else self.key()

    def is_done(self) -> bool:
        """Whether the artifact is there, complete and made from the same inputs.

        A damaged record counts as none; larger artifacts are looked through when they are used. Raises `StateError`
        where it was made from others.
        """
        info = artifact_info(self.output)
        if info is None:
            return False
        if self.output.suffix == ".json" and not is_intact(self.output):
            log.warning("%s: damaged; it is made again", self.output)
            return False
        if info.get("key") != self.key():
            raise StateError(
                f"{self.output}: made by another configuration or from other inputs; "
                "choose another results folder or move it away"
            )
        return True

    def commit(self, record: Mapping[str, Any], key: str) -> None:
        """Write `record` as the artifact, a JSON file, with its key."""
        text = json_text(record, source=self.output)
        commit_artifact(self.output, lambda temporary: temporary.write_text(text), {"key": key, **provenance()})


def read_scores(cls: type[T], path: Path) -> T:
    """The `scores` of a record that a stage committed. Raises `DataError` naming the file where it has none."""
    record = read_json(path)
    return decode(cls, record.get("scores") if isinstance(record, Mapping) else None, source=f"{path}: scores")


def key_of(artifact: Path) -> str:
    """The key of an input: the one in its side file, else (a file made elsewhere) its size and ends.

    Raises `DataError` where there is no such file.
    """
    info = artifact_info(artifact)
    if info and "key" in info:
        return str(info["key"])
    try:
        with artifact.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            return hashlib.sha256(ends + file.read() + str(size).encode()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{artifact}: no such file; the stage before makes it") from error
