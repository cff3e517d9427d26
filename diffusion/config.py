"""Configuration of the generator's training and sampling. Defaults are those of the published DiT."""

from __future__ import annotations

import math
from dataclasses import dataclass

from offline_compositional_rl_datasets.transitions import EpisodeEnds
from runtime.checks import expect_range
from runtime.errors import ConfigError

PRECISIONS = ("auto", "float32", "bfloat16")
RUNTIME_SETTINGS = ("checkpoint_seconds", "log_freq")  # of TrainConfig: these change no result
SOLVERS = ("heun_churn", "heun", "dpmpp_2m")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `batch_size` shrinks to `small_batch_size` for pools below `small_pool` rows, as published.

    `delta_next` models s' - s in place of s'. `std_offset` is added to each dimension's standard deviation.
    `warm_start_steps`, if not 0, are the steps of iterations after the first, which then continue the weights and the
    normalisation of the iteration before; with 0 each starts from scratch, as published.
    `follow_scale` shrinks what follows from the positions (velocities, action, reward, s', terminal) after
    standardisation: at a given noise level the positions are then known better than the rest, which is resolved
    after them, as a function of them. `sigma_data` shrinks alike, so the network sees unit variance everywhere.
    `action_weight` and `next_weight` weigh the action's and the next state's share of the loss against the rest's 1.
    With `order: state_first` of the network, `P_mean` and `P_std` are those of the state, which is given to the rest
    with a noise level of ln sigma ~ N(*`condition_noise`); of the rest nothing is known in the share `unknown_share`.
    `timeouts_as_terminals` counts the horizon as an end of the task, where `episode_ends` keeps an episode's last step.
    `canonical_quaternions` gives relative quaternions one sign. `standardise_terminal` treats the terminal as the
    other dimensions; without it the network sees it as raw 0 or 1. `compile` runs the network through
    torch.compile (null: on a GPU).
    """

    steps: int = 100_000
    warm_start_steps: int = 0
    batch_size: int = 1024
    small_batch_size: int = 256
    small_pool: int = 800_000
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0
    warmup_steps: int = 0
    ema_decay: float = 0.995
    ema_every: int = 10
    P_mean: float = -1.2
    P_std: float = 1.2
    sigma_data: float = 1.0
    delta_next: bool = False
    std_offset: float = 1e-5
    follow_scale: float = 1.0
    condition_noise: tuple[float, float] = (-2.0, 1.0)
    unknown_share: float = 0.5
    action_weight: float = 1.0
    next_weight: float = 1.0
    episode_ends: EpisodeEnds = "drop"
    timeouts_as_terminals: bool = False
    canonical_quaternions: bool = True
    standardise_terminal: bool = False
    precision: str = "auto"
    compile: bool | None = None
    checkpoint_seconds: float = 25.0
    log_freq: int = 100

    def __post_init__(self) -> None:
        expect_range(self, "steps", "batch_size", "small_batch_size", "log_freq", "ema_every", least=1)
        expect_range(self, "warm_start_steps", "warmup_steps", "small_pool", "weight_decay", "checkpoint_seconds")
        expect_range(self, "learning_rate", "grad_clip", "P_std", "sigma_data", "std_offset", above=True)
        expect_range(self, "follow_scale", "action_weight", "next_weight", above=True)
        expect_range(self, "P_mean", least=-math.inf)
        expect_range(self, "ema_decay", most=1)
        expect_range(self, "betas", most=1, below=True)
        if len(self.betas) != 2:
            raise ConfigError(f"betas {self.betas}: expected two numbers")
        if len(self.condition_noise) != 2 or self.condition_noise[1] < 0:
            raise ConfigError(f"condition_noise {self.condition_noise}: expected a mean and a deviation of 0 or more")
        expect_range(self, "unknown_share", most=1)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if self.episode_ends not in ("drop", "self", "reference"):
            raise ConfigError(f"episode_ends {self.episode_ends!r}: expected drop, self or reference")

    def batch_size_for(self, rows: int) -> int:
        """The batch size for a pool of so many rows."""
        return self.batch_size if rows >= self.small_pool else self.small_batch_size


@dataclass(frozen=True)
class SamplerConfig:
    """How samples are drawn. `heun_churn` with 128 steps is the published sampler (255 network evaluations).

    `clip_actions` keeps generated actions within [-1, 1], as the simulator would, `clip_rewards` rewards within the
    range of those that the generator learned from; `clear_terminals` sets terminals to 0 where it saw none. With
    `shared_noise` all tasks and iterations start from the same noise, as published; without, each has its own.
    With `order: state_first` the solver draws the state; `rest: mean` then takes the expectation of all else given the
    state (one evaluation), `rest: sample` draws it by the same solver. The network is told that the state has noise of
    the level `state_noise`: on held-out tasks its actions err by 0.24 at 0.02, 0.21 at 0.1 and 0.19 at 0.2 (14 training
    tasks, 3,000 steps), on training tasks by 0.07, 0.07 and 0.09. `compile`: as in training.
    """

    solver: str = "heun_churn"
    steps: int = 128
    num_samples: int = 1_000_000
    batch_size: int = 25_000
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    S_churn: float = 80.0
    S_tmin: float = 0.05
    S_tmax: float = 50.0
    S_noise: float = 1.003
    rest: str = "mean"
    state_noise: float = 0.2
    clip_actions: bool = True
    clip_rewards: bool = True
    clear_terminals: bool = True
    shared_noise: bool = False
    compile: bool | None = None

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver {self.solver!r}: expected one of {', '.join(SOLVERS)}")
        expect_range(self, "state_noise", above=True)
        if self.rest not in ("mean", "sample"):
            raise ConfigError(f"rest {self.rest!r}: expected mean or sample")
        expect_range(self, "steps", least=2)
        expect_range(self, "num_samples", "batch_size", least=1)
        expect_range(self, "sigma_min", "sigma_max", "rho", above=True)
        expect_range(self, "S_churn", "S_tmin", "S_tmax", "S_noise")
        if self.sigma_min >= self.sigma_max:
            raise ConfigError(f"sigma_min {self.sigma_min}: expected below sigma_max ({self.sigma_max})")


@dataclass(frozen=True)
class QualityConfig:
    """When a generated set is rejected (`diffusion.quality.Quality`); with `skip` no policy is trained on it."""

    skip: bool = False
    max_distance: float = 1.0
    max_violations: float = 0.95
    max_duplicates: float = 0.5

    def __post_init__(self) -> None:
        expect_range(self, "max_distance")
        expect_range(self, "max_violations", "max_duplicates", most=1)
