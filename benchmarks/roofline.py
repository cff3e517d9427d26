"""How long a step must take on a device, by its kernels: work, bytes and launches, counted without the device.

The roofline model (Williams, Waterman and Patterson 2009), kernel by kernel: the longest of the launch, the products at
the device's rate and the bytes at its bandwidth. Kernels are counted on torch's `meta` device, which computes nothing.
A fused or compiled step takes fewer kernels and less time; a step that takes longer than this is held up elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.limits import copy_rate, matmul_rate


@dataclass(frozen=True)
class Device:
    """FLOP/s of products in float32 and bfloat16, bytes/s read and written, seconds from one launch to the next."""

    name: str
    float32: float
    bfloat16: float
    bandwidth: float
    launch: float = 5e-6

    def rate(self, dtype: torch.dtype) -> float:
        return self.bfloat16 if dtype == torch.bfloat16 else self.float32


DEVICES = {
    # NVIDIA's data sheets, dense; of float32 products TF32's.
    "h100": Device("NVIDIA H100 SXM", 494e12, 989e12, 3.35e12),
    "h200": Device("NVIDIA H200 SXM", 494e12, 989e12, 4.8e12),
    "a100": Device("NVIDIA A100 SXM 80 GB", 156e12, 312e12, 2.04e12),
    "l40s": Device("NVIDIA L40S", 183e12, 362e12, 0.864e12),
    "rtx4090": Device("NVIDIA GeForce RTX 4090", 82.6e12, 165e12, 1.01e12),
}


def this_machine(device: torch.device) -> Device:
    """A GPU by its data sheet where that is known, else by rates that are measured now.

    An operation of the CPU costs about as much as a launch.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device).replace(" ", "").lower()
        known = [each for key, each in DEVICES.items() if key in name]
        if known:
            return known[0]
    full, half = (matmul_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    return Device(f"this machine's {device}", full, half, 2 * copy_rate(device))


@dataclass(frozen=True)
class Predicted:
    """`seconds` of a step by the device's rates; kernels that wait for their launch alone take `waiting` of them."""

    seconds: float
    waiting: float
    kernels: int
    flops: float
    moved: float


class Kernels(TorchDispatchMode):
    """Within, every operation that is no view is kept: (FLOP, bytes). Steps are counted in float32."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.each: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
        if tensors and not func.is_view and func not in _NO_KERNEL:
            counted = flop_registry.get(func._overloadpacket)
            flops = float(counted(*args, **kwargs, out_val=out)) if counted else 0.0
            moved = float(sum(value.numel() * value.element_size() for value in tensors))
            self.each.append((flops, moved))
        return out

    def on(self, device: Device, dtype: torch.dtype, times: int = 1) -> Predicted:
        """The time of all kernels on the device, `times` over; with bfloat16 all that is moved is half as large."""
        rate, size = device.rate(dtype), dtype.itemsize / torch.float32.itemsize
        seconds = waiting = 0.0
        for flops, moved in self.each:
            busy = max(flops / rate, size * moved / device.bandwidth)
            seconds += max(busy, device.launch)
            waiting += device.launch if busy < device.launch else 0.0
        flops, moved = (sum(column) for column in zip(*self.each, strict=True))
        return Predicted(times * seconds, times * waiting, times * len(self.each), times * flops, times * size * moved)


_NO_KERNEL = (torch.ops.aten.detach.default, torch.ops.aten._unsafe_view.default)
