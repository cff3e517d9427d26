"""The option by which a job asks sbatch for memory: the program's own `mem`, or one that the site has in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.jobs.resources import Resources

_UNITS = {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024**2}  # to MiB
_GPU_OPTIONS = ("gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket", "gres")


@dataclass(frozen=True)
class MemoryRequest:
    """`value` of the option `name`, which a job asks for `count` times (its cores or GPUs). `total_gb` is what the job
    gets by it; None where it cannot be told, and so not be made larger."""

    name: str
    value: str | int | bool | None
    count: int
    own: bool = False

    @property
    def total_gb(self) -> int | None:
        found = re.fullmatch(r"(\d+)([KMGT]?)B?", str(self.value), re.IGNORECASE)
        megabytes = int(found[1]) * _UNITS[found[2].upper()] * self.count if found else 0
        return math.ceil(megabytes / 1024) or None

    def of(self, memory_gb: int) -> str | int | bool | None:
        """The option's value for a job that is to have so much: the site's own until a failure asked for more."""
        if self.total_gb is None or memory_gb <= self.total_gb:
            return self.value
        return f"{math.ceil(memory_gb * 1024 / self.count)}M"


def memory_request(options: Mapping[str, Any], gres: str | None, resources: Resources) -> MemoryRequest:
    """Of a job with these resources on a site with these options of sbatch (names as submitit spells them)."""
    if options.get("mem_per_cpu") is not None:
        cores = options.get("cpus_per_task") or max(1, resources.cpus)
        return MemoryRequest("mem_per_cpu", options["mem_per_cpu"], int(cores))
    if options.get("mem_per_gpu") is not None:
        return MemoryRequest("mem_per_gpu", options["mem_per_gpu"], _gpus(options, gres, resources))
    if "mem" in options:
        return MemoryRequest("mem", options["mem"], 1)
    return MemoryRequest("mem", f"{resources.memory_gb}GB", 1, own=True)


def _gpus(options: Mapping[str, Any], gres: str | None, resources: Resources) -> int:
    """How many a job gets, by `gpu:a100:2` or a plain number."""
    given = [options[name] for name in _GPU_OPTIONS if options.get(name)]
    asked = given[0] if given else (gres or resources.gpus) if resources.gpus else 0
    number = re.search(r"(?:^|:)(\d+)$", str(asked))
    return int(number[1]) if number else 1
