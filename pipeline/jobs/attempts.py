"""A stage on its way through jobs, and the ledger of all: what a restarted loop needs to find its jobs again."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from pipeline.jobs.call import slug
from pipeline.jobs.failures import Tries
from pipeline.jobs.resources import Resources
from pipeline.jobs.stage import Stage
from runtime.atomic import read_json, write_json
from runtime.config import to_dict
from runtime.errors import DataError, one_line
from runtime.logs import duration
from runtime.records import decode

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """The jobs of one stage of one iteration. `logs` gives the folder where users look for a stage's log."""

    run: str
    stage: str
    iteration: int
    logs: Callable[[Stage], Path]

    @property
    def name(self) -> str:
        return f"{self.stage}_i{self.iteration}"

    def job_name(self, stage: Stage) -> str:
        """`policy_i2_IIWA_Box_None_Push_seed_0`: stage, iteration, task."""
        what, _, task = stage.name.partition(" ")
        return f"{self.name}_{slug(task or what)}"

    def log_file(self, stage: Stage) -> Path:
        """Name of a stage's log, which gets the job's id in front."""
        return self.logs(stage) / f"{self.run}_{self.job_name(stage)}.out"


@dataclass(frozen=True)
class Record:
    """What is written down of an `Attempt`; `key` is its stage's."""

    key: str
    job_id: str
    ticket: str
    place: int
    submitted: float
    resources: Resources
    tries: Tries


@dataclass(eq=False)
class Attempt:
    """A stage, how often it was tried, with which resources, and its job while one runs.

    `ticket` names a submission; it is written down before the job is submitted and travels in the job's comment, so
    that a job whose id was never recorded is found again. `place` is the position in that submission.
    """

    stage: Stage
    resources: Resources
    tries: Tries = field(default_factory=Tries)
    job_id: str = ""
    ticket: str = ""
    place: int = 0
    submitted: float = 0.0  # wall clock, for people alone
    not_before: float = 0.0
    started: float = 0.0
    missed: int = 0  # polls in a row in which the scheduler did not know the job
    held: bool = False
    job: submitit.Job[None] | None = None  # on this machine
    gpus: tuple[str, ...] = ()  # of this machine, while a local job runs on them
    seen: tuple[float, float] | None = None  # time and fraction of the first progress of this try

    def status(self, now: float) -> str:
        """One line: what the stage says of itself, the time it has taken and the time it still needs."""
        progress = self.stage.progress()
        times = f"{duration(now - self.started)} so far"
        if progress.fraction and self.seen is None:
            self.seen = (now, progress.fraction)
        elif self.seen and progress.fraction > self.seen[1]:
            rate = (progress.fraction - self.seen[1]) / (now - self.seen[0])
            times += f", ETA {duration((1 - progress.fraction) / rate)}"
        return f"{self.stage.name}: {progress.text} ({times})"

    @functools.cached_property
    def key(self) -> str:
        """The stage's key, which costs reading its inputs' ends; they do not change under a running stage."""
        return self.stage.key()

    def record(self) -> Record:
        return Record(self.key, self.job_id, self.ticket, self.place, self.submitted, self.resources, self.tries)

    def restore(self, record: Record) -> None:
        """Take over what a record says. Resources that failures made larger stay so, others are those asked now."""
        self.tries, grown = record.tries, record.resources
        self.resources = dataclasses.replace(
            self.resources,
            memory_gb=max(self.resources.memory_gb, grown.memory_gb if "memory" in self.tries.failures else 1),
            hours=max(self.resources.hours, grown.hours if "time" in self.tries.failures else 0),
        )
        self.job_id, self.ticket, self.place = record.job_id, record.ticket, record.place
        self.submitted = record.submitted


class Ledger:
    """`jobs.json` of a loop: stage name -> record of its attempt, while it is under way.

    Jobs that run are not found again where it is damaged; their stages' locks keep the work from being done twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        for name, written in self._written().items():
            try:
                self.records[name] = decode(Record, written, source=f"{path}: {name}")
            except DataError as error:
                log.warning("%s; it is submitted anew", one_line(error))

    def _written(self) -> Mapping[str, Any]:
        try:
            written = read_json(self.path) if self.path.exists() else {}
            if isinstance(written, Mapping):
                return written
            raise DataError(f"{self.path}: holds a {type(written).__name__}, expected an object with a key per stage")
        except (DataError, OSError) as error:
            log.warning("%s; jobs are submitted anew", one_line(error))
            return {}

    def restore(self, attempt: Attempt) -> None:
        record = self.records.get(attempt.stage.name)
        if record is not None and record.key == attempt.key:
            attempt.restore(record)

    def write(self, attempts: Iterable[Attempt]) -> None:
        self.records |= {attempt.stage.name: attempt.record() for attempt in attempts}
        write_json(self.path, to_dict(self.records))

    def forget(self, attempt: Attempt) -> None:
        if self.records.pop(attempt.stage.name, None) is not None:
            write_json(self.path, to_dict(self.records))
