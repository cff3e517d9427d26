"""Times that are predicted from work, bytes and launches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import predict
from benchmarks.roofline import DEVICES, Device, Kernels
from benchmarks.steps import policy_steps, training_step
from runtime.atomic import read_json
from runtime.errors import ConfigError
from runtime.program import PROJECT_ROOT

SLOW = Device("slow", float32=1e9, bfloat16=4e9, bandwidth=1e6, launch=0.5)


def test_a_kernel_takes_the_longest_of_its_work_its_bytes_and_its_launch() -> None:
    x, weight = torch.empty(100, 200, device="meta"), torch.empty(300, 200, device="meta")
    with Kernels() as kernels:
        F.linear(x, weight)  # work: 12 MFLOP in 12 ms, but 4 (100 * 200 + 200 * 300 + 100 * 300) bytes in 440 ms
        x.view(-1)  # no kernel
        x + 1  # 160 kB in 160 ms
    found = kernels.on(SLOW, torch.float32)
    assert found.flops == 2 * 100 * 200 * 300 and found.moved == 440_000 + 160_000 and found.kernels == 2
    assert found.seconds == pytest.approx(0.5 + 0.5) and found.waiting == pytest.approx(1.0)
    quick = Device("quick launches", float32=1e7, bfloat16=1e9, bandwidth=1e6, launch=0.0)
    assert kernels.on(quick, torch.float32).seconds == pytest.approx(12e6 / 1e7 + 0.16)
    assert kernels.on(quick, torch.bfloat16).seconds == pytest.approx(0.22 + 0.08)
    assert kernels.on(quick, torch.float32, times=3).seconds == pytest.approx(3 * (1.2 + 0.16))


def test_a_step_of_more_rows_or_policies_has_more_work_in_as_many_kernels() -> None:
    small, large = (training_step("DiT1D-XS", size).on(SLOW, torch.float32) for size in (8, 16))
    assert small.kernels == large.kernels and small.flops < large.flops < 2.1 * small.flops
    few, many = (policy_steps(members, 32).on(SLOW, torch.float32) for members in (2, 6))
    assert few.kernels == many.kernels and many.flops == pytest.approx(3 * few.flops)


def test_an_iteration_is_predicted_for_a_device_that_is_not_here(tmp_path: Path) -> None:
    command = ["-m", "benchmarks.predict", "--on", "h100", "--json", str(tmp_path / "h100.json")]
    result = subprocess.run([sys.executable, *command], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert DEVICES["h100"].name in result.stdout and "of it launches" in result.stdout
    found = read_json(tmp_path / "h100.json")
    minutes = found["minutes"]
    parts = [value for name, value in minutes.items() if name != "in all"]
    assert minutes["in all"] == pytest.approx(sum(parts)) and 5 < minutes["train the generator"] < 30
    for step in found["steps"].values():
        assert 0 <= step["waiting"] <= step["seconds"]
    with pytest.raises(ConfigError, match="--members 0"):
        predict.main(members=0)
