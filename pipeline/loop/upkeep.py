"""Artifacts that were made before and are needed again: are they still there, and whole?"""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.atomic import is_complete, is_intact, side_file

log = logging.getLogger(__name__)

_looked_through: set[tuple[Path, int, int]] = set()


def is_sound(artifact: Path) -> bool:
    """Whether an artifact is complete and has its checksum, which is computed once in a process for a file as it is.

    The side file of a damaged one is removed, with a warning: the artifact then counts as not made.
    """
    if not is_complete(artifact):
        return False
    status = artifact.stat()
    version = (artifact, status.st_size, status.st_mtime_ns)
    if version in _looked_through:
        return True
    if is_intact(artifact):
        _looked_through.add(version)
        return True
    log.warning("%s: damaged, its checksum differs from the one in its side file; it is made again", artifact)
    side_file(artifact).unlink(missing_ok=True)
    return False
