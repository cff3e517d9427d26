"""Configuration of online learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from corl.rlpd import MixSchedule
from corl.sac import SACConfig
from runtime.checks import expect_range
from runtime.errors import ConfigError

RUNTIME_SETTINGS = ("checkpoint_seconds", "log_freq")
"""These change no result: a run may be continued with others."""


@dataclass(frozen=True)
class OnlineConfig:
    """Online learning in one task. Defaults are those of the published ICDG code; all lengths are environment steps.

    `num_envs` environments step together, while the learner takes `num_envs * updates_per_step` updates on what
    was there before. The first `learning_starts` actions are random (with
    `random_start`; else the agent's own). `n_episodes` episodes are run every
    `eval_freq` steps; with `stop_success` above 0 the run ends at the first evaluation that reaches it.
    `canonical_quaternions`, `task_ids`: see `StateTransform`. `normalise`: the agent sees states over the mean and
    standard deviation of its prior data or, without any, of episodes of random actions; with `hide_velocities` it sees
    no velocities. `precision` is that of matrix products. Where to continue is written every `checkpoint_seconds`.
    """

    max_timesteps: int = 1_000_000
    num_envs: int = 1
    buffer_size: int = 1_000_000
    batch_size: int = 256
    updates_per_step: int = 1
    learning_starts: int = 5_000
    random_start: bool = True
    eval_freq: int = 100_000
    n_episodes: int = 10
    horizon: int = 500
    task_ids: bool = False
    canonical_quaternions: bool = True
    normalise: bool = False
    hide_velocities: bool = False
    precision: str = "float32"
    stop_success: float = 0.0
    checkpoint_seconds: float = 60.0
    log_freq: int = 1_000
    mix: MixSchedule = field(default_factory=MixSchedule)
    sac: SACConfig = field(default_factory=SACConfig)

    def __post_init__(self) -> None:
        positive = ("max_timesteps", "num_envs", "buffer_size", "eval_freq", "n_episodes", "horizon")
        expect_range(self, *positive, "batch_size", "updates_per_step", "log_freq", least=1)
        expect_range(self, "learning_starts", "checkpoint_seconds")
        expect_range(self, "stop_success", most=1)
        if self.buffer_size < self.num_envs:
            raise ConfigError(
                f"buffer_size {self.buffer_size}: expected at least {self.num_envs} (num_envs), the rows of one step"
            )
        if self.hide_velocities and not self.normalise:
            raise ConfigError("hide_velocities: expected normalise too, which is what hides them")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision {self.precision!r}: expected auto, float32 or bfloat16")
