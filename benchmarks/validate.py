"""Gradient steps of policies trained one by one in float32 and many at once.

Example: python -m benchmarks.validate --members 8 --json validate.json
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.limits import Measurement, matmul_rate, report, seconds_of
from benchmarks.paper_scale import POLICIES, POLICY_STEPS
from benchmarks.roofline import this_machine
from benchmarks.steps import policy_steps
from corl.bulk import Bulk
from corl.config import PolicyConfig
from corl.replay import ReplayData
from corl.run import PolicyRun
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.device import autocast_dtype, pick_device
from runtime.main import run_main


def main(
    algorithm: Literal["td3_bc", "iql", "bc", "sac"] = "td3_bc",
    members: int = 8,
    batch_size: int = 1024,
    steps: int = 20,
    device: str = "auto",
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Print policy steps per second alone and together, FLOP/s, the limit and the ratio.

    Args:
        algorithm: td3_bc, iql, bc or sac
        members: policies in a group
        batch_size: transitions per policy and step
        steps: timed steps
        device: auto, cpu or cuda[:N]
        quick: two members, a batch of 64, four steps
        json: file for the figures
    """
    expect_sizes(members=members, batch_size=batch_size, steps=steps)
    where = pick_device(device)
    members, batch_size, steps = (2, 64, 4) if quick else (members, batch_size, steps)
    rng = np.random.default_rng(0)
    states = rng.normal(size=(50_000, COMPOSUITE.state_dim)).astype(np.float32)
    actions = rng.uniform(-1, 1, (50_000, COMPOSUITE.action_dim)).astype(np.float32)
    ends = rng.random(50_000) < 0.002
    data = Transitions(states, actions, rng.random(50_000, np.float32), states, ends, ends)
    fast = autocast_dtype(where) or torch.float32
    rows, rates = [], {}
    cases = [("alone", "float32", 1), ("together", "float32", members), ("together", "auto", members)]
    for name, precision, count in cases:
        config = PolicyConfig(algorithm=algorithm, batch_size=batch_size, precision=precision, max_timesteps=10**6)
        replay = ReplayData.of(data, config, COMPOSUITE, where)
        with tempfile.TemporaryDirectory() as folder:
            runs = [PolicyRun(replay, config, Path(folder) / str(i), seed=i, device=where) for i in range(count + 1)]
            flops = _flops(runs.pop()) * count
            alone = name == "alone"
            advance: Callable[[int], object] = functools.partial(_advance, runs[0]) if alone else Bulk(runs).advance
            spent = seconds_of(functools.partial(advance, steps), where, repeats=2) / steps
        dtype = torch.float32 if precision == "float32" else fast
        rates[f"{name}_{dtype}"] = count / spent
        what = f"{algorithm}, {count} {name}, {str(dtype).split('.')[1]}"
        note = f"{count / spent:,.1f} policy steps/s"
        limit = matmul_rate(where, dtype)
        rows.append(Measurement(what, f"batch {batch_size}", spent, flops / spent, limit, "FLOP/s", note))
    best = rates[f"together_{fast}"]
    gain = best / rates["alone_torch.float32"]
    figures = {"speed_up_over_alone": gain, f"minutes_for_{POLICIES}_policies": POLICIES * POLICY_STEPS / best / 60}
    if algorithm == "td3_bc":
        predicted = policy_steps(members, batch_size).on(this_machine(where), fast)
        figures |= {"predicted_seconds": predicted.seconds / 2, "kernels": predicted.kernels / 2}
    report(rows, json, **figures)


def _advance(run: PolicyRun, steps: int) -> None:
    left = steps
    while left:
        left -= len(list(run.advance(left)))


def _flops(run: PolicyRun) -> float:
    """Of one step, averaged over two (TD3+BC's actor learns every second)."""
    with FlopCounterMode(display=False) as counter:
        list(run.advance(2))
    return float(counter.get_total_flops() / 2)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
