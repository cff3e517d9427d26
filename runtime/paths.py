"""Where data, results and caches are on this machine: `config/paths.yaml`, overridden by environment variables."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from runtime.config import load_yaml
from runtime.errors import ConfigError
from runtime.program import own_root, shipped

_MOST_CHARACTERS = 100
_NAME = re.compile(r"\w(?:[\w .+=,@-]{0,98}[\w.+=,@-])?", re.ASCII)
_PATHS_FILE = Path("config") / "paths.yaml"


def path_part(flag: str, name: str) -> str:
    """A name from outside that becomes a folder's or a file's, or a part of one.

    Raises `ConfigError` for one that could lead elsewhere or that a file system may refuse.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{flag} {name[:_MOST_CHARACTERS]!r}: expected a name of at most {_MOST_CHARACTERS} letters, digits, "
            "spaces and . _ - + = , @ that begins with a letter, a digit or _"
        )
    return name


@dataclass(frozen=True)
class MachineSettings:
    """Folders of this machine. Relative ones start at the project's root, in an installed program where it is run."""

    data_path: Path = Path("data")
    results_path: Path = Path("results")
    logs_path: Path = Path("scripts")
    runs_path: Path = Path("runs")
    cache_path: Path = Path(".cache")


@functools.cache
def machine_settings(path: Path | None = None) -> MachineSettings:
    """The settings of `config/paths.yaml` (or `path`); `ICDG_DATA_PATH` and the like take precedence.

    Raises `ConfigError` for an unknown key or a value that is not a path.
    """
    file = path or shipped(_PATHS_FILE, own_root())
    settings = load_yaml(MachineSettings, file) if file.exists() else MachineSettings()
    if "ICDG_TASKS_PATH" in os.environ:
        raise ConfigError("ICDG_TASKS_PATH: a family has its own splits now, others are named by --splits_path")
    values = {}
    for field in fields(settings):
        override = os.environ.get(f"ICDG_{field.name.upper()}")
        value = Path(override) if override else getattr(settings, field.name)
        values[field.name] = shipped(value.expanduser(), own_root())
    return MachineSettings(**values)
