"""Whose results folder it is, for commands whose folder has a fixed name: a sweep, a baseline over seeds."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import write_json
from runtime.config import to_dict
from runtime.errors import DataError, StateError
from runtime.lease import Lease, LeaseHeldError
from runtime.records import read_record

log = logging.getLogger(__name__)

_FILE = "run.json"


@contextlib.contextmanager
def owned(folder: Path, identity: Mapping[str, Any], runs: Sequence[str]) -> Iterator[None]:
    """Within, the folder is this process' alone and holds results of these settings alone.

    `identity` is what decides results, of all `runs` alike. Raises `StateError` where another command is at work in the
    folder, or made its tables with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Lease(folder / "lock.json"):
            _claim(folder / _FILE, to_dict(identity), list(runs))
            yield
    except LeaseHeldError as error:
        raise StateError(f"{folder}: another command is running on this results folder ({error})") from error


@dataclass(frozen=True)
class _Claim:
    settings: Mapping[str, Any]
    runs: tuple[str, ...] = ()


def _claim(file: Path, identity: dict[str, Any], runs: list[str]) -> None:
    try:
        recorded = read_record(_Claim, file) if file.exists() else _Claim(identity)
    except DataError as error:
        raise StateError(
            f"{error}; so it is not known whose results are here: choose another --results_path, or remove the file "
            "if they are this command's"
        ) from error
    settings = recorded.settings
    differing = sorted(key for key in {*identity, *settings} if identity.get(key) != settings.get(key))
    if differing:
        key = differing[0]
        raise StateError(
            f"{file}: made with other settings ({', '.join(differing)} differ: {key} was {settings.get(key)}, is "
            f"{identity.get(key)}); choose another --results_path"
        )
    left_out = [name for name in recorded.runs if name not in runs]
    if left_out:
        log.warning("%d runs that this command does not name are left out of the tables: %s", len(left_out),
                    ", ".join(left_out[:4]) + (", ..." if len(left_out) > 4 else ""))  # fmt: skip
    write_json(file, {"settings": identity, "runs": sorted({*recorded.runs, *runs})})
