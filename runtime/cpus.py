"""How many CPU cores this process may use, and does."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

from runtime.errors import ConfigError


def cpu_count() -> int:
    """Cores that this process may use: `ICDG_CPUS`, else those it may run on, within the quota of its container.

    A SLURM allocation or a container can be smaller than the machine. Raises `ConfigError` for another `ICDG_CPUS`
    than a whole number of 1 or more.
    """
    if asked := os.environ.get("ICDG_CPUS"):
        if not asked.isdecimal() or int(asked) < 1:
            raise ConfigError(f"ICDG_CPUS {asked!r}: expected a whole number of 1 or more")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, quota())))


def worker_count(threads: int = 0) -> int:
    """Processes for environments: one for each of `threads` cores (0: all), none where there is a single core."""
    cores = threads or cpu_count()
    return cores if cores > 1 else 0


def quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that control groups (version 1 or 2) give this process; infinite where they set no limit.

    A limit of any group around the process counts. Within a container the file system may begin at its own group,
    whose path does not exist there then.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            hierarchies, read = [root, root / "unified"], _quota_of_version_2
        elif "cpu" in controllers.split(","):
            hierarchies, read = [root / "cpu", root / controllers], _quota_of_version_1
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        limits += [read(top / group) for top in hierarchies for group in (inner, *inner.parents)]
    return min(limits)


def _quota_of_version_2(group: Path) -> float:
    """Of `cpu.max`: microseconds of time per period, `max 100000` for any."""
    with contextlib.suppress(OSError, ValueError):
        time, period = (group / "cpu.max").read_text().split()
        return math.inf if time == "max" else int(time) / int(period)
    return math.inf


def _quota_of_version_1(group: Path) -> float:
    """Of `cpu.cfs_quota_us`: microseconds of time per period, -1 for any."""
    with contextlib.suppress(OSError, ValueError):
        time = int((group / "cpu.cfs_quota_us").read_text())
        return time / int((group / "cpu.cfs_period_us").read_text()) if time > 0 else math.inf
    return math.inf


def use_threads(threads: int) -> None:
    """Let torch compute with so many threads; 0: as many as it does by itself, within `cpu_count()`."""
    import torch

    threads = threads or min(torch.get_num_threads(), cpu_count())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
