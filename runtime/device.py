"""Which device computes, in which precision."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from runtime.errors import ConfigError


def expect_device_name(name: str) -> None:
    """Raises `ConfigError` for a name that no machine has a device of; jobs may run elsewhere than where it is read."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise ConfigError(f"device {name!r}: expected auto, cpu or cuda[:N]")


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes a GPU where there is one. Raises `ConfigError` for a device that is not there."""
    expect_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """bfloat16 where the device multiplies it faster than float32, else None (float32 throughout).

    `precision` is `auto`, `float32` or `bfloat16`.
    """
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if precision != "auto":
        raise ConfigError(f"precision {precision!r}: expected auto, float32 or bfloat16")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else None


def _cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has matrix (AMX) or vector (AVX-512) instructions for bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
