"""DSRL-NA: what a gradient step costs beside one of DSRL-SAC, asking the frozen policy anew and keeping its chunks.

Example: python -m benchmarks.aliasing --seconds 20

Sizes of config/dsrl/dsrl_na_cpu.yaml (3 x 128, batch 256, actor in every second step) over a policy of 3 x 256 with 10
DDIM steps, random weights. The variants take turns in slices; CPU time of one thread is counted, and the ratios are
what to look at.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from torch import Tensor

from benchmarks.limits import machine
from dsrl.denoising import FastSampler, NoisePredictor, cosine_alpha_bar
from dsrl.noise_aliasing import Distillation, NoiseAliasingSAC
from dsrl.noise_sac import NoiseSAC, UpdateRule
from dsrl.schedule import ddim_times
from dsrl.steerable import SteerablePolicy
from runtime.cli import parse_flags
from runtime.main import run_main

_SEEN, _NOISE = 19, 28
_STORED = 2000

KEPT = Distillation(steps=2, pairs=16, refresh_share=0.125)
_STEPS = 4  # gradient steps after a decision of four environments, as dsrl_na_cpu.yaml has it
VARIANTS = {
    "SAC": None,
    "NA, 10 distillations": Distillation(steps=10),
    "NA, 2 distillations": Distillation(steps=2),
    "NA, chunks kept": KEPT,
}


class Nothing(gymnasium.Env):
    """Spaces without a task."""

    observation_space = gymnasium.spaces.Box(-5, 5, (_SEEN,), np.float32)
    action_space = gymnasium.spaces.Box(-1.5, 1.5, (_NOISE,), np.float32)


class Frozen:
    """A diffusion policy with random weights: what learning asks of a `SteerablePolicy`."""

    chunk_dim = noise_dim = _NOISE

    def __init__(self, width: int) -> None:
        network = NoisePredictor(_NOISE, _SEEN, (width,) * 3).requires_grad_(False)
        self.sample = FastSampler(network, cosine_alpha_bar(100), ddim_times(100, 10, "leading"))

    def denoise(self, seen: Tensor, w: Tensor) -> Tensor:
        return self.sample(w, seen)


def learner(distillation: Distillation | None, width: int) -> NoiseSAC:
    """With a replay buffer of random decisions."""
    network = {"net_arch": [128] * 3, "activation_fn": torch.nn.Tanh, "optimizer_kwargs": {"fused": True}}
    options: dict[str, Any] = {"policy_kwargs": network, "buffer_size": _STORED, "target_entropy": -10.0, "seed": 0}
    options["rule"] = UpdateRule(policy_delay=2)
    if distillation is None:
        model = NoiseSAC("MlpPolicy", Nothing(), **options)
    else:
        frozen = cast("SteerablePolicy", Frozen(width))
        model = NoiseAliasingSAC("MlpPolicy", Nothing(), frozen=frozen, distillation=distillation, **options)
    buffer, random = model.replay_buffer, np.random.default_rng(0)
    for name in ("observations", "next_observations"):
        getattr(buffer, name)[:] = random.uniform(-1, 1, (_STORED, 1, _SEEN))
    buffer.actions[:], buffer.rewards[:] = random.uniform(-1, 1, (_STORED, 1, _NOISE)), random.normal(size=(_STORED, 1))
    buffer.full = True
    if isinstance(model, NoiseAliasingSAC):
        model._remember_pairs(np.arange(_STORED), buffer.observations[:, 0])
    return model


def measure(batch_size: int, width: int, seconds: float) -> dict[str, float]:
    """Milliseconds of CPU time per gradient step by variant, with the pairs of the decisions that come with them."""
    calls = {}
    for name, distillation in VARIANTS.items():
        model = learner(distillation, width)

        def step(model: NoiseSAC = model, pairs: bool = bool(distillation and distillation.pairs)) -> None:
            if pairs and isinstance(model, NoiseAliasingSAC):
                model._remember_pairs(np.arange(_STEPS), model.replay_buffer.observations[:_STEPS, 0])
            model.train(_STEPS, batch_size)

        calls[name] = step
    spent, done = dict.fromkeys(calls, 0.0), dict.fromkeys(calls, 0)
    for call in calls.values():
        call()
    while sum(spent.values()) < seconds:
        for name, call in calls.items():
            start = time.process_time()
            while (used := time.process_time() - start) < seconds / 20 / len(calls):
                call()
                done[name] += _STEPS
            spent[name] += used
    return {name: 1000 * spent[name] / done[name] for name in calls}


def main(seconds: float = 20.0, batch_size: int = 256, width: int = 256, json: Path | None = None) -> None:
    """Print the figures of one core.

    Args:
        seconds: CPU time for all variants
        batch_size: decisions per gradient step
        width: of the frozen policy's three layers
        json: file for the figures
    """
    from runtime.atomic import write_json
    from runtime.checks import expect_sizes

    expect_sizes(seconds=seconds, batch_size=batch_size, width=width)
    torch.set_num_threads(1)
    found = measure(batch_size, width, seconds)
    print(machine())
    for name, milliseconds in found.items():
        print(
            f"{name:22s} {milliseconds:8.1f} ms of CPU time per step, {milliseconds / found['SAC']:5.1f} of SAC's",
            flush=True,
        )
    if json:
        write_json(json, {"machine": machine(), "milliseconds": found})


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
