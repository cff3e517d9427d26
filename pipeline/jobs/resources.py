"""What jobs ask for, where they run and how they are tried again: the settings of the job layer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.checks import expect_range
from runtime.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """What one job asks for. `cpus` is also what it takes of this machine's cores when jobs run locally (0: all)."""

    memory_gb: int
    hours: float
    cpus: int
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.memory_gb < 1 or not 0 < self.hours < math.inf or self.cpus < 0 or self.gpus < 0:
            raise ConfigError(f"{self}: expected memory and hours above 0, cpus and gpus of 0 or more")


@dataclass(frozen=True)
class ClusterConfig:
    """Where jobs run. `auto` is SLURM where `sbatch` is found, else this machine.

    `gres` replaces the plain number of GPUs (`gpu:a100:1`). `setup` are shell lines run before every SLURM job;
    `sbatch` are further options of sbatch, name -> value: null takes one out that would be there. `max_parallel` caps
    the jobs that run at once on a cluster, `max_array` the jobs of one array; `tasks_per_job` tasks run one after
    another in one job.
    `signal_seconds` before its limit a job saves where it is and queues itself again.
    """

    kind: str = "auto"
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    sbatch: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    max_parallel: int = 200
    max_array: int = 500
    tasks_per_job: int = 1
    signal_seconds: int = 90
    poll_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.kind not in ("auto", "slurm", "local"):
            raise ConfigError(f"cluster {self.kind!r}: expected auto, slurm or local")
        expect_range(self, "max_parallel", "max_array", "tasks_per_job", "signal_seconds", least=1)
        expect_range(self, "poll_seconds", above=True)
        for name in ("partition", "qos", "account", "constraint", "exclude", "gres"):
            _expect_line(f"cluster.{name}", getattr(self, name))
        for name, value in self.sbatch.items():
            if name.replace("_", "-") in _OWN_OPTIONS or not re.fullmatch(r"[a-z][a-z0-9]+([-_][a-z0-9]+)*", name):
                raise ConfigError(
                    f"cluster.sbatch: {name!r}: expected a long option of sbatch without dashes in front, and none of "
                    f"the program's own ({', '.join(_OWN_OPTIONS)})"
                )
            _expect_line(f"cluster.sbatch: {name}", value)


def _expect_line(name: str, value: object) -> None:
    """What would be more than one line of a job script says more than an option."""
    if set("\n\r\0") & set(str(value)):
        raise ConfigError(f"{name}: {value!r}: expected a single line")


# Jobs are found again, followed and continued by these.
_OWN_OPTIONS = ("array", "chdir", "comment", "error", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output",
                "parsable", "quiet", "signal", "test-only", "time", "wait", "wrap")  # fmt: skip


@dataclass(frozen=True)
class RetryConfig:
    """Retries of a failed job: how often, how long to wait, how much more to ask for, up to which caps."""

    max_retries: int = 100
    retry_delay: float = 300.0
    retry_memory_multiplier: float = 1.5
    retry_time_multiplier: float = 1.5
    max_memory_gb: int = 400
    max_time_hours: float = 72

    def __post_init__(self) -> None:
        expect_range(self, "max_retries", "retry_delay")
        expect_range(self, "retry_memory_multiplier", "retry_time_multiplier", "max_memory_gb", least=1)
        expect_range(self, "max_time_hours", above=True)
