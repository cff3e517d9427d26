"""A few demonstrations of Lift and a policy cloned from them, made once; runs at tiny sizes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dsrl.behavior_cloning import train
from dsrl.collect_demos import DemoConfig, collect
from dsrl.config import DiffusionBCConfig, DSRLConfig
from dsrl.demos import read_demonstrations
from dsrl.diffusion_policy import DiffusionPolicy
from dsrl.noise_env import NoiseVecEnv, open_noise_environments
from envs.robomimic.task import RobomimicTask
from runtime.cli import parse_flags

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = {"hidden_dims": (32, 32), "epochs": 4, "save_every": 2, "warmup_epochs": 1, "device": "cpu", "batch_size": 4}


@pytest.fixture(scope="session")
def demos(tmp_path_factory) -> Path:
    """Four recorded demonstrations of Lift."""
    path = tmp_path_factory.mktemp("demos") / "low_dim.hdf5"
    collect(RobomimicTask.standard("lift"), DemoConfig(num_demos=4), path)
    return path


@pytest.fixture(scope="session")
def cloned(demos, tmp_path_factory) -> Path:
    """A checkpoint of a policy cloned for a few steps."""
    folder = tmp_path_factory.mktemp("bc")
    task = RobomimicTask.standard("lift")
    return train(read_demonstrations(demos), task, DiffusionBCConfig(save_dir=str(folder), **TINY), device=CPU)


@pytest.fixture
def policy(cloned) -> DiffusionPolicy:
    return DiffusionPolicy.load(cloned, ddim_steps=3)


def open_noise(policy: DiffusionPolicy, **options: Any) -> NoiseVecEnv:
    """Two environments of the policy's noise with episodes of three decisions."""
    settings = {"workers": False, "horizon": 12, "until_success": True, "action_magnitude": 1.0, "seed": 0}
    return open_noise_environments(policy, 2, **{**settings, **options})


def call(main: Callable[..., Any], **flags: Any) -> Any:
    """Run a command in this process with flags as on its command line."""
    words: list[str] = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return parse_flags(main, words)


def tiny_steering(folder: Path, **options: Any) -> DSRLConfig:
    sizes = {"initial_steps": 60, "max_timesteps": 40, "utd": 2, "num_envs": 2, "horizon": 12, "hidden_dims": (16, 16)}
    trials = {
        "eval_freq": 20,
        "n_episodes": 2,
        "fresh_episodes": 2,
        "batch_size": 16,
        "least_base_rate": 0.0,
        "distill_steps": 2,
    }
    return DSRLConfig(save_dir=str(folder), device="cpu", **{**sizes, **trials, **options})


def run_command(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run python with these arguments as a user does."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )
