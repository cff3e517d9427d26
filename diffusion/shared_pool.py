"""One pool for all processes of a machine that train together: the first makes it in files that all of them map."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from diffusion.distributed import World
from diffusion.pool import Allocate, Pool
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import JobError, UserError, one_line

log = logging.getLogger(__name__)


class _Array(NamedTuple):
    """A file that holds an array's bytes."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def map(self, mode: Literal["r+", "c"]) -> np.ndarray:
        return np.memmap(self.path, self.dtype, mode, shape=self.shape)


@dataclass(frozen=True)
class _Offer:
    """What a process tells the others of a pool that it made for them, or why it made none."""

    matrix: _Array | None = None
    task_index: _Array | None = None
    conditions: np.ndarray | None = None
    error: str | None = None


def shared_pool(make: Callable[[Allocate], Pool], layout: FactoredLayout, world: World) -> Pool:
    """The pool that `make` fills with arrays of the given allocation: once on each machine, in memory once.

    To be called by all processes of `world` while they are joined. The arrays are files of the machine's temporary
    folder ($TMPDIR), whose names are gone when all have returned: nothing stays behind, even of one that is killed
    later. A process that cannot open them (another container) makes a pool of its own. Raises what `make` raises;
    where that is a `UserError` of the first process the others raise `JobError`, and wait for nothing.
    """
    if world.size == 1:
        return make(np.empty)
    machine = platform.node()
    first = world.gather(machine).index(machine)
    with _folder(first == world.rank) as folder:
        own, offer, failure = None, _Offer(), None
        if folder is not None:
            try:
                own, offer = _make(make, folder)
            except UserError as error:
                offer, failure = _Offer(error=one_line(error)), error
        offers = world.gather(offer)
        if failure:
            raise failure
        failed = next((other.error for other in offers if other.error), None)
        if failed:
            raise JobError(f"the pool was not made by another process: {failed}")
        pool = own or _map(offers[first], layout) or make(np.empty)
        world.gather(None)  # all have opened the files: their names may go
    return pool


@contextlib.contextmanager
def _folder(wanted: bool) -> Iterator[Path | None]:
    """A temporary folder of this user's alone, removed on leaving; None where it is not wanted."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="icdg_pool_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _make(make: Callable[[Allocate], Pool], folder: Path) -> tuple[Pool, _Offer]:
    """The pool in files of the folder; where the disk has no room for it, in this process' own memory, not offered."""
    files: list[_Array] = []

    def allocate(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        array = _Array(folder / str(len(files)), np.dtype(dtype), shape)
        try:
            _reserve(array.path, math.prod(shape) * array.dtype.itemsize)
        except OSError as error:
            log.warning(
                "%s: no room for a pool that is shared (%s): each process makes its own", folder, error.strerror
            )
            return np.empty(shape, dtype)
        files.append(array)
        return array.map("r+")

    pool = make(allocate)
    if len(files) != 2:
        return pool, _Offer()
    matrix, task_index = files
    return pool, _Offer(matrix, task_index, pool.conditions)


def _reserve(path: Path, size: int) -> None:
    """Make a file of so many bytes. Raises `OSError` where there is no room, before a write to its map is fatal."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _map(offer: _Offer, layout: FactoredLayout) -> Pool | None:
    """The pool that another process of this machine offers; None where it offers none or its files are elsewhere."""
    if offer.matrix is None or offer.task_index is None or offer.conditions is None:
        return None
    try:
        # "c": pages are shared until somebody writes, which nobody does; torch warns of arrays that are read-only.
        return Pool(offer.matrix.map("c"), offer.task_index.map("c"), offer.conditions, layout)
    except OSError as error:
        log.warning(
            "%s cannot be opened here (%s): this process makes a pool of its own", offer.matrix.path, error.strerror
        )
        return None
