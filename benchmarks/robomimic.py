"""Robomimic: control steps per second, gradient steps of cloning per second, and time per chunk of the sampler.

Example: python -m benchmarks.robomimic --data_path datasets/lift/scripted/low_dim_scripted.hdf5

What is compared is timed in alternating slices, so that a noisy machine slows all alike: look at the ratios.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.cli import parse_flags
from runtime.main import run_main

if TYPE_CHECKING:
    import torch


def rates(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Calls per second of each, in alternating slices of about a twentieth of the time."""
    spent, done = dict.fromkeys(calls, 0.0), dict.fromkeys(calls, 0)
    for call in calls.values():
        call()
    while sum(spent.values()) < seconds:
        for name, call in calls.items():
            start = time.perf_counter()
            while time.perf_counter() - start < seconds / 20 / len(calls):
                call()
                done[name] += 1
            spent[name] += time.perf_counter() - start
    return {name: done[name] / spent[name] for name in calls}


def environment(name: str, seconds: float) -> dict[str, float]:
    """Control steps per second: bare `mj_step` on robosuite's model and on the slim one, ours, and robosuite's own."""
    import mujoco

    from envs.robomimic.env import RobomimicEnv
    from envs.robomimic.scene import import_robosuite

    env = RobomimicEnv(name, horizon=10**9)
    env.reset(seed=0)
    arguments = json.loads(env.task.env_args)
    original = import_robosuite().make(arguments["env_name"], **arguments["env_kwargs"])
    original.reset()
    actions = iter(np.random.default_rng(0).uniform(-1, 1, (10**5, 7)))

    def bare(model: mujoco.MjModel) -> Callable[[], None]:
        data = mujoco.MjData(model)
        data.qpos[:] = env.data.qpos
        mujoco.mj_forward(model, data)

        def physics() -> None:
            data.ctrl[:7] = data.qfrc_bias[:7]  # the arm is held against gravity, as the controller does
            mujoco.mj_step(model, data, nstep=env.controller.substeps)

        return physics

    for _ in range(5):
        original.step(next(actions))  # compiles
    return rates(
        {
            "bare": bare(original.sim.model._model),
            "bare slim": bare(env.model),
            "ours": lambda: env.step(next(actions)),
            "robosuite": lambda: original.step(next(actions)),
        },
        seconds,
    )


def cloning(data_path: Path, width: int, seconds: float) -> dict[str, float]:
    """Gradient steps per second of ours and of a loop over a DataLoader in float32 with a plain AdamW and EMA."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from dsrl.behavior_cloning import Samples, Trainer
    from dsrl.config import DiffusionBCConfig
    from dsrl.demos import read_demonstrations
    from dsrl.denoising import NoisePredictor, loss
    from envs.robomimic.task import RobomimicTask

    config = DiffusionBCConfig(hidden_dims=(width,) * 3)
    device = torch.device("cpu")
    samples = Samples(read_demonstrations(data_path), RobomimicTask.standard("lift"), config, device)
    trainer = Trainer(samples, config, device)

    network = NoisePredictor(28, samples.observations.shape[1], config.hidden_dims)
    average = NoisePredictor(28, samples.observations.shape[1], config.hidden_dims)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    loader = DataLoader(TensorDataset(samples.chunks, samples.observations), config.batch_size, shuffle=True)

    def batches() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    endless = batches()

    def plain() -> None:
        chunks, observations = next(endless)
        error = loss(network, chunks, observations, trainer.alpha_bar)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        error.item()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.mul_(0.995).add_(value, alpha=0.005)

    def ours() -> None:
        trainer.step(torch.randint(len(samples), (config.batch_size,), generator=trainer.generator))

    return rates({"ours": ours, "plain": plain}, seconds)


def sampling(width: int, batch: int, seconds: float) -> dict[str, float]:
    """Milliseconds per call for a chunk of 4 actions, 10 DDIM steps: the fast sampler and the plain one."""
    import torch

    from dsrl.denoising import FastSampler, NoisePredictor, cosine_alpha_bar, ddim
    from dsrl.schedule import ddim_times

    network = NoisePredictor(28, 19, (width,) * 3).requires_grad_(False)
    alpha_bar, times = cosine_alpha_bar(100), ddim_times(100, 10, "leading")
    fast = FastSampler(network, alpha_bar, times)
    w, seen = torch.randn(batch, 28), torch.randn(batch, 19)
    both = rates({"fast": lambda: fast(w, seen), "plain": lambda: ddim(network, w, seen, alpha_bar, times)}, seconds)
    return {name: 1000 / rate for name, rate in both.items()}


def steering(batch_size: int, seconds: float) -> dict[str, float]:
    """Gradient steps of SAC per second on 28 numbers of noise, 3 x 128: ours and stable-baselines3's `train`."""
    import gymnasium
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import configure

    from dsrl.noise_sac import NoiseSAC

    class Nothing(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (19,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (28,), np.float32)

    def filled(kind: type[SAC], **options: Any) -> SAC:
        network = {"net_arch": [128] * 3, "activation_fn": torch.nn.Tanh, **options}
        model = kind("MlpPolicy", Nothing(), policy_kwargs=network, buffer_size=2000, target_entropy=-14.0, seed=0)
        model.set_logger(configure(None, []))
        assert model.replay_buffer is not None
        random = np.random.default_rng(0)
        for _ in range(2000):
            seen, after = random.uniform(-1, 1, (2, 1, 19))
            w, reward = random.uniform(-1, 1, (1, 28)), random.normal(size=1)
            model.replay_buffer.add(seen, after, w, reward, np.zeros(1), [{}])
        return model

    ours, stock = filled(NoiseSAC, optimizer_kwargs={"fused": True}), filled(SAC)
    stock._current_progress_remaining = 1.0
    return rates({"ours": lambda: ours.train(1, batch_size), "stock": lambda: stock.train(1, batch_size)}, seconds)


def main(data_path: Path, seconds: float = 6.0, json: Path | None = None) -> None:
    """Print the figures of one core.

    Args:
        data_path: a data set of Lift
        seconds: time per row
        json: file for the figures
    """
    import torch

    from dsrl.demos import read_demonstrations
    from envs.robomimic.task import RobomimicTask
    from runtime.atomic import write_json
    from runtime.checks import expect_sizes
    from runtime.errors import DataError

    expect_sizes(seconds=seconds)
    recorded = RobomimicTask.from_env_args(read_demonstrations(data_path).env_args, str(data_path))
    if recorded.name != "lift":
        raise DataError(f"{data_path}: demonstrations of the task {recorded.name!r}, expected those of 'lift'")
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    for name in ("lift", "can", "square"):
        rows[f"control steps/s {name}"] = environment(name, seconds)
    for width in (256, 512, 1024):
        rows[f"cloning steps/s 3 x {width}"] = cloning(data_path, width, seconds)
    for width in (256, 512, 1024):
        for batch in (1, 20):
            rows[f"ms per DDIM call 3 x {width}, batch {batch}"] = sampling(width, batch, seconds / 2)
    for batch in (128, 256):
        rows[f"SAC steps/s 3 x 128, batch {batch}"] = steering(batch, seconds)
    for name, row in rows.items():
        print(f"{name:36s}", "  ".join(f"{key} {value:8.2f}" for key, value in row.items()), flush=True)
    if json:
        write_json(json, rows)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
