"""What the machine can do at most, measured beside the thing itself, and one way to report a measurement."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.atomic import write_json


@dataclass(frozen=True)
class Measurement:
    """`achieved` and `limit` in FLOP/s or bytes/s; `note` says what else there is to know."""

    what: str
    work: str
    seconds: float
    achieved: float
    limit: float
    unit: str
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.achieved / self.limit

    def __str__(self) -> str:
        giga = f"{self.achieved / 1e9:10,.1f} of {self.limit / 1e9:10,.1f} G{self.unit}"
        return f"{self.what:46s} {self.work:26s} {self.seconds:10.3f} s {giga} {self.ratio:6.1%}  {self.note}".rstrip()


def report(measurements: Sequence[Measurement], json: Path | None, **figures: Any) -> None:
    """Print, and write to `json` with further figures."""
    for measurement in measurements:
        print(measurement, flush=True)
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value:,.3f}" if isinstance(value, float) else f"{name}: {value}", flush=True)
    if json:
        rows = [asdict(m) | {"ratio": m.ratio} for m in measurements]
        write_json(json, {"measurements": rows, "torch": torch.__version__, **figures})


def machine() -> str:
    """The processor, its cores and how busy it is."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    busy = f", {os.getloadavg()[0]:.1f} processes at work" if hasattr(os, "getloadavg") else ""
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores{busy}, torch {torch.__version__}"


def seconds_of(function: Callable[[], Any], device: torch.device, *, repeats: int, warmup: int = 1) -> float:
    """Mean time of a call, on a GPU until its work is done."""
    for _ in range(warmup):
        function()
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square product."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / seconds_of(lambda: a @ b, device, repeats=20 if device.type == "cuda" else 4)


def copy_rate(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes/s of a copy (the bytes that are copied, not read plus written)."""
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return size / seconds_of(lambda: target.copy_(source), device, repeats=5)


def fresh_copy_rate(size: int) -> float:
    """Bytes/s of a copy to memory of the CPU that the system has yet to hand out, as that of a new array is."""
    source = np.ones(size, np.uint8)
    return size / seconds_of(source.copy, torch.device("cpu"), repeats=3)
