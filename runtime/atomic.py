"""Files that are either whole or absent, and artifacts: files with a small JSON beside them that vouches for them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import DataError


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
    """Write `value` as indented JSON; not-a-number is refused because other readers of JSON refuse it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Raises `DataError` where the file is missing or is not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error


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


def commit_artifact(path: Path | str, write: Callable[[Path], None], info: Mapping[str, Any]) -> None:
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
    path = Path(path)
    try:
        record = json.loads(side_file(path).read_text(encoding="utf-8"))
        complete = path.stat().st_size == record["bytes"]
        return record["info"] if complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_complete(path: Path | str) -> bool:
    """Whether an artifact and its side file are there and agree in size."""
    return artifact_info(path) is not None


def verify(path: Path | str) -> None:
    """Raises `DataError` unless the artifact's bytes have the checksum in its side file."""
    if not is_complete(path):
        raise DataError(f"{path}: incomplete (no {side_file(path).name} beside it, or another size)")
    if read_json(side_file(path))["sha256"] != checksum(path):
        raise DataError(f"{path}: damaged, its checksum differs from the one in {side_file(path).name}")
