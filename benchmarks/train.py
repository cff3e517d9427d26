"""Training steps of the 26 M generator beside the measured rate of a large product, and beside a naive version.

Example: python -m benchmarks.train --json train.json

The naive version is the same network in float32 with a masked loop over the elements of every encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.limits import Measurement, matmul_rate, report, seconds_of
from benchmarks.roofline import this_machine
from benchmarks.steps import training_step
from diffusion import dit
from diffusion.config import TrainConfig
from diffusion.denoisers import build, denoiser_named
from diffusion.elements import ElementLinear
from diffusion.ema import EMA
from diffusion.train import make_loss, parameter_groups, train_step
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.device import autocast_dtype, pick_device
from runtime.main import run_main


def masked_loop(layer: ElementLinear, x: Tensor, one_hot: Tensor | None) -> Tensor:
    """What `ElementLinear` gives, element by element with masks and a question to the host for each."""
    if one_hot is None:
        return F.linear(x, layer.weight[0].T, layer.bias[0])
    out = x.new_zeros(*x.shape[:-1], layer.weight.shape[-1])
    for element in range(len(layer.weight)):
        mask = one_hot[:, element] > 0
        if mask.any():
            out[mask] = F.linear(x[mask], layer.weight[element].T, layer.bias[element])
    return out


@contextmanager
def naive() -> Iterator[None]:
    """Within, networks compute their encoders by masked loops and attention by torch's fused kernel."""
    with (
        mock.patch.object(ElementLinear, "forward", masked_loop),
        mock.patch.object(dit, "attend", F.scaled_dot_product_attention),
    ):
        yield


def main(
    denoiser: str = "dit",
    batch_size: int = 1024,
    steps: int = 4,
    device: str = "auto",
    compile: bool = False,
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Print time per step, FLOP/s, the limit and the ratio.

    Args:
        denoiser: name of the network
        batch_size: transitions per step
        steps: timed steps (on a GPU ten times as many)
        device: auto, cpu or cuda[:N]
        compile: run the network through torch.compile
        quick: a batch of 64 and two steps
        json: file for the figures
    """
    expect_sizes(batch_size=batch_size, steps=steps)
    where, network_config = pick_device(device), denoiser_named(denoiser).network
    batch_size, steps = (64, 2) if quick else (batch_size, steps * (10 if where.type == "cuda" else 1))
    torch.manual_seed(0)
    y = torch.randn(batch_size, COMPOSUITE.transition_dim, device=where)
    condition = torch.zeros(batch_size, COMPOSUITE.condition_dim, device=where)
    for part in COMPOSUITE.condition_slices.values():
        choice = torch.randint(part.start, part.stop, (batch_size, 1), device=where)
        condition.scatter_(1, choice, 1.0)

    def seconds(precision: str) -> tuple[float, int]:
        config = TrainConfig(precision=precision, compile=compile)
        network = build(COMPOSUITE, network_config).to(where)
        groups = parameter_groups(network, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, config.learning_rate, config.betas, fused=True)
        ema = EMA(network, decay=config.ema_decay, every=config.ema_every)
        generator = torch.Generator(where).manual_seed(0)
        dtype = autocast_dtype(where, precision)
        loss = make_loss(network_config.order, config, COMPOSUITE, where)
        done = 0

        def step() -> None:
            nonlocal done
            trained = compiled if compile else network
            train_step(trained, optimizer, loss, y, condition, generator, dtype=dtype, grad_clip=config.grad_clip)
            done += 1
            ema.update(done)

        compiled = cast(nn.Module, torch.compile(network)) if compile else network
        spent = seconds_of(step, where, repeats=steps, warmup=5 if compile else 1)
        with FlopCounterMode(display=False) as counter:
            train_step(network, optimizer, loss, y[:8], condition[:8], generator, grad_clip=config.grad_clip)
        return spent, counter.get_total_flops() * batch_size // 8

    spent, flops = seconds("auto")
    with naive():
        plain, plain_flops = seconds("float32")
    dtype = autocast_dtype(where) or torch.float32
    fast_limit, plain_limit = matmul_rate(where, dtype), matmul_rate(where, torch.float32)
    work = f"batch {batch_size}"
    # The naive network makes fewer products: the work that counts is its.
    rows = [
        Measurement(
            f"train {denoiser}, {str(dtype).split('.')[1]}", work, spent, plain_flops / spent, fast_limit, "FLOP/s"
        ),
        Measurement(f"train {denoiser}, naive float32", work, plain, plain_flops / plain, plain_limit, "FLOP/s"),
    ]
    predicted = training_step(denoiser, batch_size).on(this_machine(where), dtype)
    report(
        rows,
        json,
        speed_up_over_naive=plain / spent,
        minutes_for_100k_steps=spent * 1e5 / 60,
        flops_executed=flops,
        predicted_seconds=predicted.seconds,
        kernels=predicted.kernels,
    )


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
