"""What the jobs of a run used of what they asked for: by their own notes, and by SLURM's accounting where it tells.

A job's note holds the peak of its process and of the largest process that it started; worker processes side by side are
therefore counted once. SLURM's `MaxRSS` is the whole job's, and stands in its place where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.jobs.call import read_note_file
from pipeline.jobs.scheduler import ask
from runtime.atomic import read_json, write_json
from runtime.errors import DataError

_FILE = "usage.json"  # job id -> GB by the accounting, beside the state
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Usage:
    """Of the jobs of a stage: peak memory (GB) of the largest, hours of the longest; None where none has told."""

    memory_gb: float | None = None
    hours: float | None = None
    accounted: bool = False  # the memory is the scheduler's figure


def notes_of(jobs: Path, run: str, folder: Path) -> list[dict[str, Any]]:
    """The notes that a run's jobs left, each with its `job` and, where accounting told, `accounted_gb`.

    `jobs` has a folder per job, of this and other runs; `run` is the run's name, `folder` its own.
    """
    accounted, notes = _accounted(folder), []
    for file in sorted(jobs.glob("*/note_*.json")):
        note, job = read_note_file(file), file.parent.name
        if note is not None and note["run"] == run:
            notes.append(note | {"job": job, "accounted_gb": accounted.get(job)})
    return notes


def used(notes: Iterable[Mapping[str, Any]]) -> Usage:
    """The most that any of these jobs used; a note does not tell the time of a job that still runs."""
    notes = list(notes)
    accounted = [note["accounted_gb"] for note in notes if note["accounted_gb"] is not None]
    own = [note["memory_gb"] for note in notes if note["accounted_gb"] is None]
    memory = max([*accounted, *own], default=None)
    hours = max((note["seconds"] / 3600 for note in notes if note["outcome"] != "running"), default=None)
    return Usage(memory, hours, bool(accounted) and memory in accounted)


def of_stage(notes: Iterable[Mapping[str, Any]], stage: str) -> list[Mapping[str, Any]]:
    """The notes of a stage's jobs in all iterations."""
    return [note for note in notes if note["group"].rpartition("_i")[0] == stage]


def ask_accounting(jobs: Path, run: str, folder: Path) -> None:
    """Note down the `MaxRSS` of ended jobs that the accounting has not told of before; nothing where there is none."""
    ended = [n for n in notes_of(jobs, run, folder) if n["outcome"] != "running" and n["accounted_gb"] is None]
    # Jobs of this machine alone have names.
    found = peak_memory(sorted({note["job"] for note in ended if note["job"][0].isdigit()}))
    if found:
        write_json(folder / _FILE, _accounted(folder) | found)


def _accounted(folder: Path) -> dict[str, float]:
    """What the accounting has told so far; a damaged file is asked for anew."""
    try:
        known = read_json(folder / _FILE)
    except (DataError, OSError):
        return {}
    return known if isinstance(known, dict) and all(type(gb) in (int, float) for gb in known.values()) else {}


def peak_memory(job_ids: Sequence[str]) -> dict[str, float]:
    """Job id -> GB by the accounting, of those that it knows."""
    found: dict[str, float] = {}
    for start in range(0, len(job_ids), _IDS_PER_QUERY):
        some = job_ids[start : start + _IDS_PER_QUERY]
        found |= parse_max_rss(ask("sacct", "-P", "-n", "-o", "JobID,MaxRSS", "-j", ",".join(some)) or "")
    return {job: found[job] for job in job_ids if job in found}


def parse_max_rss(text: str) -> dict[str, float]:
    """Job id -> GB of its largest step, of `sacct -P -n -o JobID,MaxRSS` (`123_4.batch|812340K`)."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([\d_]+)\.[^|]+\|([\d.]+)([KMGT]?)", line.strip())
        if match:
            job, size, unit = match.groups()
            gb = round(float(size) * _UNITS[unit] / 2**30, 3)
            if gb:
                found[job] = max(gb, found.get(job, 0.0))
    return found
