"""Configuration of offline training and the scores that it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from corl.bc import BC, BCConfig
from corl.iql import IQL, IQLConfig
from corl.learner import Learner
from corl.td3_bc import TD3BC, TD3BCConfig
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.device import autocast_dtype
from runtime.errors import ConfigError, DataError, expect_range

ALGORITHMS = ("td3_bc", "iql", "bc")
RUNTIME_SETTINGS = ("checkpoint_seconds", "group")  # of PolicyConfig: these change no result


@dataclass(frozen=True)
class PolicyConfig:
    """Offline training of one policy. Defaults are those of the published code.

    `n_episodes` are run every `eval_freq` steps to choose the checkpoint. `fresh_episodes`, if not 0, are run once
    more at the end on other start states, with the chosen checkpoint: their rate is free of the optimism of a maximum
    over noisy evaluations. `hide_velocities`, `canonical_quaternions`, `timeouts_as_terminals`: see `ReplayData`.
    `act_noise` is the standard deviation of normal noise on every action when the policy acts: without it a policy
    without memory that presses against an obstacle presses on for ever.
    `precision` is that of matrix products (float32, bfloat16, or auto: bfloat16 where the device has it); parameters
    and losses are float32. `group` policies are trained by one job in one process, 1: each by a job of its own.
    Where to continue is written after every evaluation and, by a job that trains one policy, every
    `checkpoint_seconds` between them.
    """

    algorithm: str = "td3_bc"
    max_timesteps: int = 50_000
    batch_size: int = 1024
    eval_freq: int = 5_000
    n_episodes: int = 10
    fresh_episodes: int = 0
    horizon: int = 500
    hide_velocities: bool = False
    canonical_quaternions: bool = True
    timeouts_as_terminals: bool = False
    act_noise: float = 0.0
    precision: str = "float32"
    checkpoint_seconds: float = 25.0
    group: int = 1
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    iql: IQLConfig = field(default_factory=IQLConfig)
    bc: BCConfig = field(default_factory=BCConfig)

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm {self.algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
        expect_range(self, "max_timesteps", "batch_size", "eval_freq", "n_episodes", "horizon", "group", least=1)
        expect_range(self, "fresh_episodes", "checkpoint_seconds", "act_noise")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision {self.precision!r}: expected auto, float32 or bfloat16")

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the chosen algorithm's networks."""
        return getattr(self, self.algorithm).hidden

    def learner(self, layout: FactoredLayout, *, seed: int, device: torch.device) -> Learner:
        """An untrained policy of the chosen algorithm."""
        sizes = (layout.state_dim, layout.action_dim)
        dtype = autocast_dtype(device, self.precision)
        if self.algorithm == "td3_bc":
            return TD3BC(*sizes, self.td3_bc, seed=seed, device=device, dtype=dtype)
        if self.algorithm == "bc":
            return BC(*sizes, self.bc, seed=seed, device=device, dtype=dtype, max_steps=self.max_timesteps)
        return IQL(*sizes, self.iql, seed=seed, device=device, dtype=dtype, max_steps=self.max_timesteps)


@dataclass(frozen=True)
class PolicyScores:
    """Successes of `episodes`: of the best evaluation, of the last one, and of the best checkpoint on fresh starts.

    Raises `DataError` where those cannot be.
    """

    episodes: int
    best_solved: int
    best_return: float
    last_solved: int
    last_return: float
    fresh_episodes: int = 0
    fresh_solved: int = 0
    fresh_return: float = 0.0

    def __post_init__(self) -> None:
        counts = ((self.best_solved, self.episodes), (self.last_solved, self.episodes))
        for solved, episodes in (*counts, (self.fresh_solved, self.fresh_episodes)):
            if not 0 <= solved <= episodes:
                raise DataError(f"{solved} of {episodes} episodes solved: expected 0 to all of them")
        if self.episodes < 1:
            raise DataError(f"an evaluation of {self.episodes} episodes: expected 1 or more")

    @property
    def solved(self) -> int:
        """Successes that the selection counts: on fresh episodes where there are some, else the best evaluation's."""
        return self.fresh_solved if self.fresh_episodes else self.best_solved

    @property
    def trials(self) -> int:
        return self.fresh_episodes or self.episodes

    @property
    def score(self) -> float:
        """The best mean return."""
        return self.fresh_return if self.fresh_episodes else self.best_return


def checkpoint_file(folder: Path, algorithm: str, which: str) -> Path:
    """`which` is `best_eval` (highest mean return) or `best_successrate`."""
    return folder / f"{algorithm}_policy_model_{which}.pt"
