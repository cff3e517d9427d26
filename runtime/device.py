"""Which device computes, in which precision."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import provenance
from runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch

# PyTorch is imported where it is asked: the queue of jobs does without it.

log = logging.getLogger(__name__)

CPUINFO = Path("/proc/cpuinfo")


def expect_device_name(name: str) -> None:
    """Raises `ConfigError` for a name that no machine has a device of; jobs may run elsewhere than where it is read."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", name):
        raise ConfigError(f"device {name!r}: expected auto, cpu or cuda[:N]")


class DeviceError(Exception):
    """A GPU that this process was given cannot be used: a fault of the machine, not of the program or its input."""


_granted = 0


def expect_gpus(count: int) -> None:
    """This process was given so many GPUs: not to find them is then a `DeviceError` wherever a device is picked."""
    global _granted
    _granted = count


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them: by number, or GPU-... or MIG-..."""
    import torch

    count = torch.cuda.device_count()
    named = tuple(name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip())
    return named[:count] if named else tuple(map(str, range(count)))


def expect_room(device: torch.device, needed: int, what: str) -> None:
    """Raises `ConfigError` where a GPU has less than `needed` bytes free for `what`; other devices are not asked."""
    import torch

    if device.type != "cuda":
        return
    free, whole = torch.cuda.mem_get_info(device)
    if needed > free:
        raise ConfigError(
            f"{what} take {needed / 2**30:.1f} GiB, and {device} has {free / 2**30:.1f} of {whole / 2**30:.1f} free; "
            "expected less at once (policy.group)"
        )


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes a GPU where there is one. What is picked is logged, and part of `provenance()` from then on.

    Raises `ConfigError` for a device that is not there, `DeviceError` where fewer GPUs are there than were given.
    """
    import torch

    expect_device_name(name)
    # A driver that is missing or too old counts no devices.
    found = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name != "cpu" and found < _granted:
        count = "1 GPU" if _granted == 1 else f"{_granted} GPUs"
        raise DeviceError(f"the job was given {count} and CUDA finds {found or 'none'}")
    device = torch.device(("cuda" if found else "cpu") if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"device {name!r}: this machine has {found} CUDA devices")
    _tell(device)
    return device


def _tell(device: torch.device) -> None:
    import torch

    described = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    if provenance.computes_on(described):
        log.info("computing on %s", described)


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """bfloat16 where the device multiplies it faster than float32, else None (float32 throughout).

    `precision` is `auto`, `float32` or `bfloat16`. On a GPU this process' products of float32 are made in TF32 from
    then on, unless float32 is asked for.
    """
    import torch

    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"precision {precision!r}: expected auto, float32 or bfloat16")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    if precision != "auto":
        return None if precision == "float32" else torch.bfloat16
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bfloat16()
    return torch.bfloat16 if fast else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Within, matrix products are made in `dtype`; None: as their operands are."""
    import torch

    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32.

    Matrix instructions (AMX) do, by far. AMD's vector instructions (AVX-512) make 2.3 times float32's products, Intel's
    0.55 times: on a Xeon whose AMX is hidden from the guest a generator's step took 1.45 times as long in bfloat16.
    """
    try:
        flags = CPUINFO.read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in flags)
