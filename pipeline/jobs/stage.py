"""What every stage is: a picklable value that makes one artifact from files, under a lock, once.

The artifact's side file holds a key: a hash of the configuration and of the inputs' keys. A stage whose artifact is
there with the same key is done; one that was made otherwise is refused, not overwritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from runtime.atomic import artifact_info, commit_artifact, is_intact, json_text, read_json
from runtime.errors import DataError, StateError
from runtime.lease import waiting_lock
from runtime.provenance import provenance
from runtime.records import decode

T = TypeVar("T")

log = logging.getLogger(__name__)

_END_BYTES = 1 << 20


class Stage(Protocol):
    """What the job layer asks of a stage."""

    @property
    def name(self) -> str: ...

    @property
    def output(self) -> Path: ...

    def key(self) -> str: ...

    def progress(self) -> StageProgress: ...

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class StageProgress:
    """How far a running stage is: for people, and as a fraction (0 while nothing is known)."""

    text: str
    fraction: float = 0.0


def is_done(stage: Stage) -> bool:
    """Whether the stage's artifact is there, complete and made from the same inputs.

    A damaged record counts as none; larger artifacts are looked through when they are used. Raises `StateError` where
    it was made from others.
    """
    info = artifact_info(stage.output)
    if info is None:
        return False
    if stage.output.suffix == ".json" and not is_intact(stage.output):
        log.warning("%s: damaged; it is made again", stage.output)
        return False
    if info.get("key") != stage.key():
        raise StateError(
            f"{stage.output}: made by another configuration or from other inputs; "
            "choose another results folder or move it away"
        )
    return True


@contextlib.contextmanager
def held(stage: Stage, folder: Path) -> Iterator[str | None]:
    """Hold the stage's lock; gives its key, or None where it is done already.

    The lock goes with the process, so a job left over by a killed loop and its successor never write side by side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with waiting_lock(folder):
        done = is_done(stage)
        if done:
            log.info("%s: finished before", stage.name)
        yield None if done else stage.key()


def commit_record(stage: Stage, record: Mapping[str, Any], key: str) -> None:
    """Write `record` as the stage's artifact, a JSON file, with its key."""
    text = json_text(record, source=stage.output)
    commit_artifact(stage.output, lambda temporary: temporary.write_text(text), {"key": key, **provenance()})


def read_scores(cls: type[T], path: Path) -> T:
    """The `scores` of a record that `commit_record` wrote. Raises `DataError` naming the file where it has none."""
    record = read_json(path)
    return decode(cls, record.get("scores") if isinstance(record, Mapping) else None, source=f"{path}: scores")


def key_of(artifact: Path) -> str:
    """The key of an input: the one in its side file, else (a file made elsewhere) its size and ends.

    Raises `DataError` where there is no such file.
    """
    info = artifact_info(artifact)
    if info and "key" in info:
        return info["key"]
    try:
        with artifact.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            return hashlib.sha256(ends + file.read() + str(size).encode()).hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{artifact}: no such file; the stage before makes it") from error
