"""Configuration of offline training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from corl.acting import Acting
from corl.learner import Learner
from corl.learners import learner_named, settings_of
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.checks import expect_range
from runtime.config import dict_without
from runtime.device import autocast_dtype
from runtime.errors import ConfigError

RUNTIME_SETTINGS = ("checkpoint_seconds", "group")  # of PolicyConfig: these change no result


@dataclass(frozen=True)
class PolicyConfig:
    """Offline training of one policy. Defaults are those of the published code.

    `learners` has what of the algorithm's settings (the `Config` of `corl.learners.LEARNERS`) is not as by default,
    under its name; what it has of other algorithms is not used.
    `n_episodes` are run every `eval_freq` steps to choose the checkpoint. `fresh_episodes`, if not 0, are run once
    more at the end on other start states, with the chosen checkpoint: their rate is free of the optimism of a maximum
    over noisy evaluations. With `n_episodes` 0 nothing is chosen: the policy of the last step is scored on the fresh
    episodes, which are its only evaluation.
    `hide_velocities`, `canonical_quaternions`, `least_std` (0: none, only `STD_OFFSET` is added): see `StateTransform`;
    `timeouts_as_terminals`: see `ReplayData`.
    `act_noise` is the standard deviation of normal noise on every action when the policy acts: without it a policy
    without memory that presses against an obstacle presses on for ever. `binary_hold`: for so many steps a command of
    which only the sign counts keeps one draw of it (`Acting`); 0: it is taken as the policy gives it.
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
    least_std: float = 0.0
    timeouts_as_terminals: bool = False
    act_noise: float = 0.0
    binary_hold: int = 0
    precision: str = "float32"
    checkpoint_seconds: float = 25.0
    group: int = 1
    learners: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learners", settings_of(self.algorithm, self.learners))
        expect_range(self, "max_timesteps", "batch_size", "eval_freq", "horizon", "group", least=1)
        expect_range(
            self, "n_episodes", "fresh_episodes", "checkpoint_seconds", "act_noise", "binary_hold", "least_std"
        )
        if not self.n_episodes and not (self.fresh_episodes and self.eval_freq >= self.max_timesteps):
            raise ConfigError(
                f"n_episodes 0 with fresh_episodes {self.fresh_episodes}, eval_freq {self.eval_freq}, max_timesteps "
                f"{self.max_timesteps}: expected fresh episodes and no evaluation before the last step"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision {self.precision!r}: expected auto, float32 or bfloat16")

    @property
    def scored_afresh(self) -> bool:
        """Whether the chosen checkpoint is scored on fresh episodes when training is over."""
        return self.fresh_episodes > 0 and self.n_episodes > 0

    @property
    def identity(self) -> dict[str, Any]:
        """The part that decides results. What is not used is not in it: older results know nothing of it."""
        unused = () if self.least_std else ("least_std",)
        return dict_without(self, (*RUNTIME_SETTINGS, *unused))

    @property
    def learner(self) -> Any:
        """The algorithm's settings."""
        return self.learners[self.algorithm]

    def build(self, layout: FactoredLayout, *, seed: int, device: torch.device) -> Learner:
        """An untrained policy of the chosen algorithm."""
        return learner_named(self.algorithm).build(
            layout.state_dim,
            layout.action_dim,
            self.learner,
            seed=seed,
            device=device,
            dtype=autocast_dtype(device, self.precision),
            max_steps=self.max_timesteps,
        )

    def transform(self, states: np.ndarray, layout: FactoredLayout) -> StateTransform:
        """What the policy sees of states, fitted on those of its set (N, 77)."""
        return StateTransform.fit(
            states,
            layout,
            hide_velocities=self.hide_velocities,
            canonical_quaternions=self.canonical_quaternions,
            least_std=self.least_std or None,
        )

    def acting(self, layout: FactoredLayout) -> Acting:
        return Acting(self.act_noise, self.binary_hold, layout.binary_actions)

    def actor(self, layout: FactoredLayout) -> nn.Module:
        """The network that acts, untrained."""
        kind = learner_named(self.algorithm)
        return kind.network("actor", layout.state_dim, layout.action_dim, self.learner)
