"""Functions compiled by numba, kept on disk where there is a place for them, so that only the first process waits."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

from runtime.errors import one_line
from runtime.paths import machine_settings

log = logging.getLogger(__name__)

_FOLDER = "numba"


def cache_folder() -> Path | None:
    """Where compiled functions are kept: numba's own setting, else below `cache_path`, else in a temporary folder of
    this user's; None where nothing can be written."""
    for place, private in _PLACES:
        try:
            folder = place()
            folder.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
            if private and not _is_own(folder):
                continue
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


def _configured() -> Path:
    return Path(vars(numba.config)["CACHE_DIR"] or machine_settings().cache_path / _FOLDER)


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"icdg-{_FOLDER}-{os.getuid()}"


_PLACES = ((_configured, False), (_temporary, True))  # with whether anybody may write beside it


def _is_own(folder: Path) -> bool:
    """Whether nobody else can have put anything there: what is found there is run."""
    found = folder.lstat()
    return found.st_uid == os.getuid() and not folder.is_symlink() and not found.st_mode & 0o077


@contextlib.contextmanager
def _go_on_without(cache: FunctionCache) -> Iterator[None]:
    """Around reading and keeping a function: a disk that fills or fails later costs the compilation, not the run."""
    try:
        yield
    except OSError as error:
        cache.disable()
        log.warning("%s: a compiled function is not kept (%s)", cache.cache_path, one_line(error))


FunctionCache._guard_against_spurious_io_errors = _go_on_without  # type: ignore[method-assign, assignment]

_folder = cache_folder()
if _folder is None:  # robosuite's functions are kept as well, and cannot be imported where there is no place for them
    Dispatcher.enable_caching = lambda dispatcher: None  # type: ignore[method-assign, assignment]
else:
    vars(numba.config)["CACHE_DIR"] = str(_folder)

compiled = numba.njit(cache=True, nogil=True)
"""Decorator: compiled at the first call, without the interpreter's lock."""
