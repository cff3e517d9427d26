"""Stages that one process makes together, as a stage of its own: their artifacts and keys are those of single jobs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.jobs.stage import Stage
from runtime.config import config_hash

S = TypeVar("S", bound=Stage)
G = TypeVar("G", bound="StageGroup")  # type: ignore[type-arg]


class StageGroup(Stage, abc.ABC, Generic[S]):
    """A subclass is a frozen dataclass with `members`; its record says that all of them were made."""

    members: tuple[S, ...]

    def record_in(self, folder: Path, names: Sequence[str]) -> Path:
        """Where the record of members of these names is: in a folder each, since its lock is the group's own."""
        return folder / "groups" / config_hash(list(names)) / "group.json"

    def key(self) -> str:
        return config_hash([member.key() for member in self.members])

    def is_done(self) -> bool:
        # A member that was lost or damaged since is made again.
        return super().is_done() and all(member.is_done() for member in self.members)


def in_groups(stages: Sequence[S], size: int, group: Callable[[tuple[S, ...]], G]) -> list[S | G]:
    """The jobs for these stages, `size` neighbours each; one that is left alone is a single job."""
    parts = [tuple(stages[i : i + size]) for i in range(0, len(stages), size)]
    return [group(part) if len(part) > 1 else part[0] for part in parts]
