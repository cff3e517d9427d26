"""A copy of the program as it is when jobs are submitted: what users edit while jobs wait does not reach these."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from pathlib import Path

from runtime.program import PACKAGES, PROJECT_ROOT

_NOT_PROGRAM = ("slurm", "__pycache__")
_LOGS = "_logs"  # how folders of logs end, which may lie under scripts/ too


def _files() -> dict[Path, bytes]:
    """The program's regular files in order with their contents.

    What else is there is left out, such as the lock of an editor (a link to nowhere), a pipe, and files that are gone
    again when they are read.
    """
    found: dict[Path, bytes] = {}
    for package in PACKAGES:
        for folder, folders, names in os.walk(PROJECT_ROOT / package):
            folders[:] = sorted(name for name in folders if name not in _NOT_PROGRAM and not name.endswith(_LOGS))
            for name in sorted(names):
                path = Path(folder) / name
                if not name.endswith((".pyc", ".out", ".csv")) and path.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(PROJECT_ROOT)] = path.read_bytes()
    return found


@functools.cache
def take(folder: Path) -> Path:
    """Copy the program to `folder/<hash of its files>`, if it is not there yet; gives that folder.

    Once per process: a loop runs the code that it was started with.
    """
    files = _files()
    digest = hashlib.sha256()
    for file, content in files.items():
        digest.update(str(file).encode() + b"\0" + content + b"\0")
    target = folder / digest.hexdigest()[:12]
    if target.exists():
        return target
    temporary = folder / f".{target.name}.{os.getpid()}"
    for file, content in files.items():
        copy = temporary / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    try:
        temporary.rename(target)
    except OSError:  # another loop was faster
        shutil.rmtree(temporary)
    return target
