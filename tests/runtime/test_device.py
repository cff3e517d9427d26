"""In which precision products are made on which processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from runtime import device
from runtime.device import autocast_dtype
from runtime.errors import ConfigError

INTEL, AMD = "vendor_id : GenuineIntel\nflags : fpu avx512f", "vendor_id : AuthenticAMD\nflags : fpu avx512f"


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        (f"{INTEL} avx512_bf16 amx_bf16", torch.bfloat16),
        (f"{INTEL} avx512_bf16", None),
        (f"{AMD} avx512_bf16", torch.bfloat16),
        (AMD, None),
        (None, None),
    ],
    ids=["intel with matrix instructions", "intel without", "amd", "older amd", "unknown"],
)
def test_auto_takes_bfloat16_where_a_processor_multiplies_it_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, dtype: torch.dtype | None
) -> None:
    file = tmp_path / "cpuinfo"
    if cpuinfo:
        file.write_text(cpuinfo)
    monkeypatch.setattr(device, "CPUINFO", file)
    assert autocast_dtype(torch.device("cpu"), "auto") == dtype
    assert autocast_dtype(torch.device("cpu"), "bfloat16") == torch.bfloat16
    assert autocast_dtype(torch.device("cpu"), "float32") is None


@pytest.fixture
def products_as_before() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("products_as_before")
def test_a_gpu_multiplies_float32_in_tf32_unless_float32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    torch.set_float32_matmul_precision("highest")
    for kind, precision, expected in (
        ("cpu", "auto", "highest"),
        ("cuda", "auto", "high"),
        ("cpu", "float32", "high"),
        ("cuda", "float32", "highest"),
    ):
        assert autocast_dtype(torch.device(kind), precision) is None
        assert torch.get_float32_matmul_precision() == expected


def test_what_does_not_fit_on_a_gpu_is_refused_before_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * 2**30, 80 * 2**30))
    gpu = torch.device("cuda:0")
    device.expect_room(gpu, 20 * 2**30, "25 sets")
    device.expect_room(torch.device("cpu"), 2**50, "25 sets")
    with pytest.raises(ConfigError, match=r"25 sets take 33\.0 GiB, and cuda:0 has 20\.0 of 80\.0 free; expected less"):
        device.expect_room(gpu, 33 * 2**30, "25 sets")
