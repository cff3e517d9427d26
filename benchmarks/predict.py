"""What a paper-scale IIWA iteration must take on a device that is not here, by work, bytes and launches of its steps.

Example: python -m benchmarks.predict --on h100 --cores 16

Sizes are those of `benchmarks.paper_scale`. The first run on the device itself shows by these figures what is off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.paper_scale import CONTROL_STEPS, POLICIES, POLICY_STEPS, TARGETS, TRAINING_STEPS
from benchmarks.roofline import DEVICES, this_machine
from benchmarks.steps import policy_steps, sampling, training_step
from diffusion.config import SamplerConfig
from runtime.atomic import write_json
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.device import pick_device
from runtime.main import run_main

_ENV_STEPS = 1900.0
"""Control steps per second of one core (docs/results/speed.md)."""


def main(
    on: Literal["h100", "h200", "a100", "l40s", "rtx4090", "here"] = "h100",
    precision: Literal["bfloat16", "float32"] = "bfloat16",
    denoiser: str = "dit",
    members: int = 25,
    cores: int = 16,
    env_steps: float = _ENV_STEPS,
    json: Path | None = None,
) -> None:
    """Print each part's kernels, work and least time.

    Args:
        on: the device; here: this machine's, with its rates measured
        precision: of the products
        denoiser: name of the generator's network
        members: policies in a group
        cores: that evaluate policies
        env_steps: control steps per second of one core
        json: file for the figures
    """
    expect_sizes(members=members, cores=cores)
    device = this_machine(pick_device("auto")) if on == "here" else DEVICES[on]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    sampler = SamplerConfig(solver="dpmpp_2m", steps=8)
    parts = {
        "train the generator": (training_step(denoiser, 1024), TRAINING_STEPS),
        f"generate {TARGETS} tasks": (sampling(denoiser, 25_000, sampler), TARGETS * 40),
        f"train {POLICIES} policies": (policy_steps(members, 1024), POLICIES * POLICY_STEPS // (2 * members)),
    }
    print(f"{device.name}, {precision}: {device.rate(dtype) / 1e12:,.1f} TFLOP/s, ", end="")
    print(f"{device.bandwidth / 1e9:,.0f} GB/s, {device.launch * 1e6:.0f} us a launch")
    minutes: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for what, (kernels, times) in parts.items():
        one, whole = kernels.on(device, dtype), kernels.on(device, dtype, times)
        minutes[what] = whole.seconds / 60
        share = one.waiting / one.seconds
        print(f"{what:28s} {one.kernels:6,} kernels {one.flops / 1e9:10,.1f} GFLOP {one.moved / 1e9:8.2f} GB ", end="")
        print(
            f"{one.seconds * 1e3:9.2f} ms, {share:4.0%} of it launches; {times:9,} times: {minutes[what]:8.1f} minutes"
        )
        figures[what] = vars(one) | {"times": times}
    evaluation = CONTROL_STEPS / env_steps / cores / 60
    minutes[f"evaluate on {cores} cores, beyond training"] = max(
        0.0, evaluation - minutes[f"train {POLICIES} policies"]
    )
    minutes["in all"] = sum(minutes.values())
    for what, value in minutes.items():
        print(f"{what:50s} {value:10.1f} minutes")
    if json:
        write_json(json, {"device": device.name, "minutes": minutes, "steps": figures})


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
