"""Files that are either whole or absent, and artifacts: files with a small JSON beside them that vouches for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import DataError, one_line


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of `path`, renamed to `path` on success and removed on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and (error.filename is None or error.filename == name):
            error.filename = str(path)  # what a full disk stopped
        raise


def _umask() -> int:
    """The process' file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON. Raises `DataError` for a number that is not finite: JSON has none."""
    write_text(path, json_text(value, source=path))


def json_text(value: Any, *, source: Path | str) -> str:
    """What `write_json` writes. `source` is named in the `DataError` for a number that is not finite."""
    try:
        return json.dumps(value, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        where = _not_finite(value)
        raise DataError(f"{source}: {where or one_line(error)}, expected finite numbers; not written") from error


def _not_finite(value: Any, place: str = "") -> str:
    """The first number in a nest that is not finite, with its place; empty where there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place or 'the value'} is {value}"
    items: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, Mapping) else ()
    items = enumerate(value) if isinstance(value, (list, tuple)) else items
    found = (_not_finite(item, f"{place}.{key}" if place else str(key)) for key, item in items)
    return next(filter(None, found), "")


def read_json(path: Path | str) -> Any:
    """Raises `DataError` where the file is missing or is not JSON, which has no NaN and no number beyond a float's."""
    path = Path(path)
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, expected a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({one_line(error)})") from error


def parse_json(text: str) -> Any:
    """Python's reader takes more than JSON. Raises `ValueError`, or `RecursionError` for a very deep nest."""

    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no number")

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    return json.loads(text, parse_constant=refuse, parse_float=number)


def checksum(path: Path | str) -> str:
    """SHA-256 of a file's bytes (hexadecimal)."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def side_file(path: Path | str) -> Path:
    path = Path(path)
    return path.with_name(path.name + ".json")


def commit_artifact(path: Path | str, write: Callable[[Path], object], info: Mapping[str, Any]) -> None:
    """Write an artifact: the file by `write(temporary_path)`, then its side file with size, checksum and `info`.

    An older pair goes first and the side file comes before the file: whenever this is interrupted, there is no side
    file that vouches for another file than the one beside it, and no file without one.
    """
    path = Path(path)
    side_file(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        write(temporary)
        record = {
            "bytes": temporary.stat().st_size,
            "sha256": checksum(temporary),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "info": dict(info),
        }
        path.unlink(missing_ok=True)
        write_json(side_file(path), record)


def artifact_info(path: Path | str) -> dict[str, Any] | None:
    """The `info` of a complete artifact; None where the file, its side file or the right size is missing."""
    record = _side_record(path)
    return None if record is None else record["info"]


def _side_record(path: Path | str) -> dict[str, Any] | None:
    """What the side file of a complete artifact says; None where it says nothing or speaks of another file."""
    try:
        record = read_json(side_file(path))
        size = Path(path).stat().st_size
    except (OSError, DataError):
        return None
    known = isinstance(record, dict) and isinstance(record.get("info"), dict) and isinstance(record.get("sha256"), str)
    return record if known and record.get("bytes") == size else None


def is_complete(path: Path | str) -> bool:
    """Whether an artifact and its side file are there and agree in size."""
    return artifact_info(path) is not None


def is_intact(path: Path | str) -> bool:
    """Whether a file is what its side file says, to the last byte; one without a side file for it is taken as it is."""
    record = _side_record(path)
    return record is None or record["sha256"] == checksum(path)


def verify(path: Path | str) -> None:
    """Raises `DataError` where a file is not `is_intact`. To be called before an artifact is used."""
    if not is_intact(path):
        raise DataError(
            f"{path}: damaged, its checksum differs from the one in {side_file(path).name}; "
            "move both away and what made it makes it again"
        )
