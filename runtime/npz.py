"""npz archives and npy files that come from anywhere, read without trust: plain arrays alone, and no size is
believed that the file's own bytes cannot hold."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from runtime.errors import DataError, one_line

NUMBERS, FLAGS, TEXT = "fiu", "fiub", "U"
"""Kinds of types (`numpy.dtype.kind`) that a member may have."""

DEFLATE_MOST = 1032
"""Times as many bytes as it has itself that a deflated block can hold (https://zlib.net/zlib_tech.html)."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of numpy.savez and numpy.savez_compressed
_ENCRYPTED = 0x1
_DAMAGE = (
    EOFError, ValueError, RuntimeError, KeyError, SyntaxError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path: Path, kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays called as the keys of `kinds`, each of a type of those kinds (such as `NUMBERS`).

    Raises `DataError` for a file that is missing, damaged or lacks one, and for a member that is encrypted, compressed
    otherwise than by deflate, no array, of another kind, or larger than its bytes can stand for.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            missing = [key for key in kinds if key not in members]
            if missing:
                raise DataError(f"{path}: lacks {', '.join(missing)}, expected the keys {', '.join(kinds)}")
            return {key: _read(archive, members[key], kind, f"{path}: {key}") for key, kind in kinds.items()}
    except (OSError, *_DAMAGE) as error:
        raise DataError(f"{path}: not a readable npz file, perhaps truncated ({one_line(error)})") from error


def read_npy(path: Path, kinds: str) -> np.ndarray:
    """The array of an npy file, of a type of those kinds.

    Raises `DataError` where it is damaged, of another kind or larger than the file, `OSError` where the disk does not
    give it.
    """
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    with path.open("rb") as file:
        shape, kind, size = _header(file, str(path))
        if kind.kind not in kinds:
            raise DataError(f"{path} has dtype {kind}, expected {'text' if kinds == TEXT else 'numbers'}")
        held = path.stat().st_size - file.tell()
        if min(shape, default=0) < 0 or size > held:
            raise DataError(f"{path} claims the shape {shape}, of which the file holds {held:,} bytes")
        file.seek(0)
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except _DAMAGE as error:
            raise DataError(f"{path}: not a readable npy file ({one_line(error)})") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str, label: str) -> np.ndarray:
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{label} is encrypted")
    if member.compress_type not in _COMPRESSIONS:
        raise DataError(f"{label} is compressed by method {member.compress_type}, expected deflate or none")
    with archive.open(member) as file:
        shape, kind, size = _header(file, label)
    if kind.kind not in kinds:
        raise DataError(f"{label} has dtype {kind}, expected {'text' if kinds == TEXT else 'numbers'}")
    most = min(member.file_size, member.compress_size * DEFLATE_MOST)
    if min(shape, default=0) < 0 or size > most:
        raise DataError(f"{label} claims the shape {shape}, of which the file holds {member.compress_size:,} bytes")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes], label: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and bytes of the array that the member claims to be."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise DataError(f"{label} is an array of format {version}, expected 1.0 or 2.0")
        shape, _, kind = _HEADERS[version](file)
    except (*_DAMAGE, MemoryError) as error:  # a header may be nested too deeply to be parsed
        raise DataError(f"{label} is not an array ({one_line(error)})") from error
    return shape, kind, math.prod(shape) * kind.itemsize
