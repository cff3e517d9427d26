"""The project's own JSON files, decoded strictly: every key there, of its type and finite, and no other key.

What a run depends on is read with `read_record`, what it can do without (figures, notes of jobs) with `read_optional`.
"""

from __future__ import annotations

import logging
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from runtime.atomic import read_json
from runtime.errors import DataError, UserError, one_line

T = TypeVar("T")

log = logging.getLogger(__name__)

_MOST_OF_VALUE = 60  # characters of a wrong value that are shown
_told: set[tuple[Path, str]] = set()


def read_record(cls: type[T], path: Path) -> T:
    """The dataclass `cls` that a JSON file holds. Raises `DataError` naming file, key and value where it holds none."""
    return decode(cls, read_json(path), source=str(path))


def read_mapping(path: Path) -> Mapping[str, Any]:
    """The object that a JSON file holds. Raises `DataError` naming the file where it holds none."""
    value = read_json(path)
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: holds {_shown(value)}, expected an object with keys")
    return value


def read_optional(cls: type[T], path: Path) -> T | None:
    """`read_record`, but None where there is no file, and with a warning, once, where it cannot be used.

    Keys that are not known (another version's) are passed over.
    """
    try:
        return decode(cls, read_json(path), source=str(path), strict=False) if Path(path).exists() else None
    except (DataError, OSError) as error:
        _warn_once(Path(path), f"{one_line(error)}; going on without it")
        return None


def _warn_once(path: Path, message: str) -> None:
    """Such files are read every minute while a run goes on."""
    if (path, message) not in _told:
        _told.add((path, message))
        log.warning("%s", message)


def decode(cls: type[T], value: Any, *, source: str, strict: bool = True) -> T:
    """The dataclass `cls` of plain JSON values. Lists stand for `list` and `tuple[str, ...]`, objects for `Mapping`.

    `source` names in errors where the value comes from. Raises `DataError`, for unknown keys too where `strict`.
    """
    import dacite  # here, so that learners and benchmarks run where torch and numpy are all there is

    if not isinstance(value, Mapping):
        raise DataError(f"{source}: holds {_shown(value)}, expected an object with keys")
    rules = dacite.Config(strict=strict, type_hooks={int: _whole, float: _number, tuple[str, ...]: _names})
    try:
        return dacite.from_dict(cls, value, rules)
    except dacite.WrongTypeError as error:
        kind = error.field_type
        expected = str(kind) if typing.get_args(kind) else getattr(kind, "__name__", str(kind))
        raise DataError(f"{source}: {error.field_path} is {_shown(error.value)}, expected {expected}") from error
    except dacite.MissingValueError as error:
        raise DataError(f"{source}: has no {error.field_path}") from error
    except (dacite.DaciteError, UserError, ArithmeticError, TypeError, ValueError) as error:
        raise DataError(f"{source}: {one_line(error)}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_OF_VALUE else text[: _MOST_OF_VALUE - 3] + "..."


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise _wrong_type(int, value)
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _wrong_type(float, value)
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong_type(list, value)
    return tuple(value)


def _wrong_type(kind: type, value: Any) -> Exception:
    import dacite

    return dacite.WrongTypeError(kind, value)
