"""HDF5 files that come from anywhere, read without trust: nothing outside the file is opened, and no size is believed
that the file's own bytes cannot hold. They are only read, so that HDF5's lock, which some file systems do not have, is
left alone.
"""

from __future__ import annotations

import contextlib
import math
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np

from runtime.errors import DataError, one_line
from runtime.npz import DEFLATE_MOST

Item: TypeAlias = h5py.Group | h5py.Dataset | h5py.Datatype

_UNWRITTEN_MOST = 64 * 2**20  # bytes of fill values in place of values that were never written
_REFUSALS = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # of h5py, for what HDF5 cannot make sense of


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """A file to be read by `find`, `read` and `attribute`.

    Raises `DataError` for a file that is missing, not a regular one or not HDF5, also for what turns out while it is
    read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such data file")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable HDF5 file, perhaps truncated ({one_line(error)})") from error


def find(group: h5py.Group, name: str) -> Item | None:
    """What stands under `name` (`a/b`: b in the group a) in the file itself; None where nothing does.

    Raises `DataError` for a soft or external link, for a data set whose values lie elsewhere (external storage, a
    virtual data set) or that claims more of them than its part of the file can hold, and for what HDF5 cannot open.
    """
    item: Item = group
    label = f"{group.file.filename}: {posixpath.join(group.name or '/', name).lstrip('/')}"
    for part in name.split("/"):
        if not isinstance(item, h5py.Group):
            return None
        try:
            links, key = item.id.links, part.encode()
            if not links.exists(key):
                return None
            if links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise DataError(f"{label} is a link to another place, expected it in the file itself")
            item = item[part]
        except _REFUSALS as error:
            raise DataError(f"{label} cannot be opened ({one_line(error)})") from error
    if isinstance(item, h5py.Dataset):
        try:
            _check_storage(item, label)
        except _REFUSALS as error:
            raise DataError(f"{label} cannot be read ({one_line(error)})") from error
    return item


def _check_storage(data: h5py.Dataset, label: str) -> None:
    """Raises `DataError` for values outside the file, and for more of them than the stored bytes can stand for."""
    if data.is_virtual or data.external:
        raise DataError(f"{label} has its values in other files, expected them in the file itself")
    if data.shape is None:
        return
    stored, whole = data.id.get_storage_size(), data.file.id.get_filesize()
    if stored > whole:
        raise DataError(f"{label} claims {stored:,} bytes of a file of {whole:,}")
    filtered = data.id.get_create_plist().get_nfilters() > 0
    most = max(stored * (DEFLATE_MOST if filtered else 1), _UNWRITTEN_MOST)
    for what, shape in (("", data.shape), (" in a chunk", data.chunks or ())):
        claimed = math.prod(shape) * data.dtype.itemsize
        if claimed > most:
            raise DataError(f"{label} claims {claimed:,} bytes{what}, of which the file holds {stored:,}")


def read(data: h5py.Dataset, rows: slice = slice(None)) -> np.ndarray:
    """Values of a data set that `find` gave. Raises `DataError` where HDF5 cannot read them."""
    try:
        values: np.ndarray = data[rows] if data.ndim else data[()]
        return values
    except _REFUSALS as error:
        raise DataError(f"{data.file.filename}: {data.name} cannot be read ({one_line(error)})") from error


def attribute(item: Item, name: str) -> Any:
    """An attribute's value; None where there is none. Raises `DataError` where it cannot be read."""
    label = f"{item.file.filename}: attribute {name!r} of {item.name}"
    try:
        if name not in item.attrs:
            return None
        stored = item.attrs.get_id(name)
        claimed = math.prod(stored.shape or ()) * stored.dtype.itemsize
        if claimed > item.file.id.get_filesize():
            raise DataError(f"{label} claims {claimed:,} bytes of a file of {item.file.id.get_filesize():,}")
        return item.attrs[name]
    except _REFUSALS as error:
        raise DataError(f"{label} cannot be read ({one_line(error)})") from error
