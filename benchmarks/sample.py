"""Sampling: its rate, and for a trained generator what each solver gives for its evaluations of the network.

Examples:
    python -m benchmarks.sample --json sample.json
    python -m benchmarks.sample --checkpoint MODEL.pt --data_path data/demo --task IIWA_Box_None_Trashcan --csv q.csv
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.limits import Measurement, matmul_rate, report
from benchmarks.roofline import this_machine
from benchmarks.steps import sampling
from diffusion.config import SamplerConfig
from diffusion.denoisers import build, denoiser_named
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from diffusion.normalizer import Normalizer
from diffusion.quality import LEVELS
from diffusion.samplers import evaluations
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import find_task_file, read_expert
from offline_compositional_rl_datasets.state_transform import canonicalise_transitions
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.device import autocast_dtype, pick_device
from runtime.errors import ConfigError
from runtime.main import run_main
from runtime.tables import write_csv

PUBLISHED, NARROW = (80.0, 0.002), (10.0, 0.02)  # noise levels from, to
SOLVERS = [
    *(("heun_churn", steps, PUBLISHED) for steps in (8, 16, 32, 64, 128)),
    *(("heun", steps, PUBLISHED) for steps in (4, 6, 8, 16, 32, 64)),
    *(("dpmpp_2m", steps, PUBLISHED) for steps in (4, 6, 8, 10, 12, 16, 24, 32, 64)),
    *(("heun_churn", steps, NARROW) for steps in (8, 16, 32)),
    *(("dpmpp_2m", steps, NARROW) for steps in (4, 5, 6, 8, 10, 12, 16)),
]
_REWARD_TOLERANCE = 0.05
_COLUMNS = (
    "task",
    "seed",
    "solver",
    "sigma_max",
    "sigma_min",
    "evaluations",
    "seconds",
    "distance",
    "reward_agreement",
)


def reward_agreement(matrix: np.ndarray, task: CompoSuiteTask) -> float:
    """Share of transitions (N, 164) whose reward is that of their s' and action within 0.05.

    Whether the object is grasped is not in the observation: the nearer of both rewards counts.
    """
    from envs.composuite.objectives import OBJECTIVES, Situation

    objective, agreeing = OBJECTIVES[task.objective], 0
    following = matrix[:, COMPOSUITE.next_state].astype(np.float64)
    for state, action, reward in zip(
        following, matrix[:, COMPOSUITE.action], matrix[:, COMPOSUITE.reward], strict=True
    ):
        x, y, z, w = state[69:73] / max(np.linalg.norm(state[69:73]), 1e-6)
        hand = np.eye(3)
        hand[1, 2] = 2 * (y * z - w * x)  # the only entry that a reward asks for
        rewards = [
            objective.reward(Situation(state[0:3], state[66:69], state[28:31], hand, grasped, action[-1]), shaped=True)
            for grasped in (False, True)
        ]
        agreeing += min(abs(value - reward) for value, _ in rewards) < _REWARD_TOLERANCE
    return agreeing / len(matrix)


def distance(matrix: np.ndarray, real: np.ndarray) -> float:
    """1-Wasserstein distance per dimension in the real data's standard deviations, averaged over dimensions."""
    apart = np.abs(np.quantile(matrix, LEVELS, axis=0) - np.quantile(real, LEVELS, axis=0)).mean(axis=0)
    return float((apart / (real.std(axis=0) + 1e-3)).mean())


def quality(
    checkpoint: Path, data_path: Path, task: CompoSuiteTask, rows: int, seeds: int, device: torch.device
) -> list[dict[str, object]]:
    """Distance and reward agreement of every solver, and of a half of the real data against the other."""
    model = DiffusionModel.load(checkpoint, COMPOSUITE, device)
    real = read_expert(find_task_file(data_path, "expert", task), task).to_matrix(
        COMPOSUITE, timeouts_as_terminals=False
    )
    canonicalise_transitions(real, COMPOSUITE)
    shuffled = real[np.random.default_rng(0).permutation(len(real))]
    half = len(real) // 2
    figures = {"distance": distance(shuffled[:half], shuffled[half:])}
    figures["reward_agreement"] = reward_agreement(shuffled[:rows], task)
    found = [{"task": task.name, "solver": "real data", "evaluations": 0, "seed": 0, "seconds": 0.0, **figures}]
    for solver, steps, (high, low) in SOLVERS:
        levels = {"sigma_max": high, "sigma_min": low}
        config = SamplerConfig(
            solver=solver,
            steps=steps,
            num_samples=rows,
            batch_size=min(rows, 1000),
            sigma_max=high,
            sigma_min=low,
        )
        for seed in range(seeds):
            start = time.perf_counter()
            matrix = generate(model, task.one_hot, config, seed=seed)
            spent = time.perf_counter() - start
            row = {"task": task.name, "solver": solver, "evaluations": evaluations(config), "seed": seed}
            row |= {**levels, "seconds": spent, "distance": distance(matrix, real)}
            found.append(row | {"reward_agreement": reward_agreement(matrix, task)})
            print(
                " ".join(f"{k} {v:.4f}" if isinstance(v, float) else str(v) for k, v in found[-1].items()), flush=True
            )
    return found


def _line(row: dict[str, object]) -> str:
    """Its line's name in the picture."""
    levels = f", {row['sigma_max']:g} to {row['sigma_min']:g}" if "sigma_max" in row else ""
    return f"{row['solver']}{levels}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Quality against evaluations, one line per solver and range of noise (mean over tasks and seeds)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("distance", "reward_agreement"), strict=True):
        for line in dict.fromkeys(map(_line, rows)):
            own = [row for row in rows if _line(row) == line]
            counts = sorted({row["evaluations"] for row in own})
            means = [np.mean([row[name] for row in own if row["evaluations"] == count]) for count in counts]
            if line == "real data":
                axis.axhline(means[0], color="0.6", linestyle="--", label=line)
            else:
                axis.plot(counts, means, marker="o", label=line)
        axis.set(xscale="log", xlabel="evaluations of the network", ylabel=name.replace("_", " "))
        axis.legend()
    axes[0].set_yscale("log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@dataclass(frozen=True)
class QualityFlags:
    """Of which generator quality against evaluations is measured, and how."""

    checkpoint: Path | None = None
    """a trained generator"""
    data_path: Path | None = None
    """real data of --task"""
    task: tuple[str, ...] = ()
    """tasks that the generator was trained on"""
    rows: int = 2000
    """samples per solver"""
    seeds: int = 1
    """repetitions"""
    plot_file: Path | None = None
    """picture of quality against evaluations"""
    csv: Path | None = None
    """table of quality against evaluations"""


_RATE_ALONE = QualityFlags()


def main(
    of: QualityFlags = _RATE_ALONE,
    denoiser: str = "dit",
    batch_size: int = 1000,
    device: str = "auto",
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Print evaluations and FLOP/s of a generator with random weights; with --checkpoint quality against evaluations.

    Args:
        denoiser: name of the network whose rate is measured
        batch_size: samples per evaluation (on a GPU 25 times as many)
        device: auto, cpu or cuda[:N]
        quick: a batch of 100
        json: file for the figures of the rate
    """
    expect_sizes(batch_size=batch_size, rows=of.rows, seeds=of.seeds)
    where = pick_device(device)
    of_quality = {"--data_path": of.data_path, "--task": of.task, "--csv": of.csv, "--plot_file": of.plot_file}
    for flag, value in of_quality.items():
        if value and not of.checkpoint:
            raise ConfigError(f"{flag}: expected --checkpoint beside it; random weights have no quality")
    if json and of.checkpoint:
        raise ConfigError("--json: holds the rate of random weights, expected no --checkpoint; quality goes to --csv")
    if of.checkpoint:
        if of.data_path is None or not of.task:
            raise ConfigError("--checkpoint: expected --data_path and --task beside it")
        table = []
        for name in of.task:
            table += quality(of.checkpoint, of.data_path, CompoSuiteTask.parse(name), of.rows, of.seeds, where)
        if of.csv:
            write_csv(of.csv, _COLUMNS, table)
        if of.plot_file:
            plot(table, of.plot_file)
        return
    from torch.utils.flop_counter import FlopCounterMode

    batch_size = 100 if quick else batch_size * (25 if where.type == "cuda" else 1)
    torch.manual_seed(0)
    network = build(COMPOSUITE, denoiser_named(denoiser).network).to(where).eval().requires_grad_(False)
    dim = COMPOSUITE.transition_dim
    normalizer = Normalizer(torch.zeros(dim), torch.ones(dim), COMPOSUITE, False).to(where)
    model = DiffusionModel(network, normalizer, torch.ones((), device=where), 0)
    condition = CompoSuiteTask.parse("IIWA_Box_None_Push").one_hot
    config = SamplerConfig(solver="dpmpp_2m", steps=4, num_samples=batch_size, batch_size=batch_size)
    one = torch.from_numpy(condition)[None].to(where)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(8, dim, device=where), torch.zeros(1, device=where), one)
    flops = counter.get_total_flops() / 8 * batch_size
    generate(model, condition, config, seed=0)
    start = time.perf_counter()
    generate(model, condition, config, seed=0)
    spent = (time.perf_counter() - start) / evaluations(config)
    dtype = autocast_dtype(where) or torch.float32
    what = f"evaluate {denoiser}, {str(dtype).split('.')[1]}"
    row = Measurement(what, f"batch {batch_size}", spent, flops / spent, matmul_rate(where, dtype), "FLOP/s")
    figures = {}
    for solver, steps in (("heun_churn", 128), ("dpmpp_2m", 16), ("dpmpp_2m", 8)):
        count = evaluations(dataclasses.replace(config, solver=solver, steps=steps))
        figures[f"minutes_for_1M_samples_{solver}_{steps}"] = spent / batch_size * 1e6 * count / 60
    predicted = sampling(denoiser, batch_size, config).on(this_machine(where), dtype)
    report([row], json, predicted_seconds=predicted.seconds / evaluations(config), kernels=predicted.kernels, **figures)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
