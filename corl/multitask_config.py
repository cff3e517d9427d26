"""Configuration of offline learning over many tasks at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corl.learners import settings_of
from offline_compositional_rl_datasets.transitions import EpisodeEnds
from runtime.checks import expect_range
from runtime.errors import ConfigError

ALGORITHMS = {
    "bc": ("bc", "mlp"),
    "cp_bc": ("bc", "cp"),
    "iql": ("iql", "mlp"),
    "cp_iql": ("iql", "cp"),
    "td3_bc": ("td3_bc", "mlp"),
    "transformer_td3_bc": ("td3_bc", "transformer"),
    "compositional_td3_bc": ("td3_bc", "compositional"),
}
"""Published name -> learner, kind of networks."""

_DEFAULTS: dict[str, dict[str, Any]] = {"bc": {"tau": 1.0, "cosine": False}, "iql": {"gaussian": True}}
"""Settings of learners that are published otherwise for many tasks."""

RUNTIME_SETTINGS = ("log_freq", "checkpoint_seconds")
"""Of MultitaskConfig: these change no result."""


@dataclass(frozen=True)
class MultitaskConfig:
    """Defaults are those of the published transformer baseline; batches are uniform over all rows.

    `learners`: as in `corl.config.PolicyConfig`.
    `eval_freq` 0: no evaluation before the end. Losses are written every `log_freq` steps, where to continue every
    `checkpoint_seconds`. `normalise`, `hide_velocities`, `canonical_quaternions`: as for a
    single task (`corl.replay`); the ids are never normalised. `episode_ends`: see `read_expert`.
    """

    algorithm: str = "transformer_td3_bc"
    max_timesteps: int = 50_000
    batch_size: int = 1792
    eval_freq: int = 5_000
    log_freq: int = 5_000
    n_episodes: int = 10
    horizon: int = 500
    normalise: bool = False
    hide_velocities: bool = False
    canonical_quaternions: bool = True
    episode_ends: EpisodeEnds = "self"
    precision: str = "float32"
    checkpoint_seconds: float = 25.0
    learners: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm {self.algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
        object.__setattr__(self, "learners", settings_of(self.kind, self.learners, _DEFAULTS))
        if self.kind == "bc" and self.learner.members != 1:
            raise ConfigError(f"learner.members {self.learner.members}: expected 1, one agent for all tasks")
        expect_range(self, "max_timesteps", "batch_size", "log_freq", "n_episodes", "horizon", least=1)
        expect_range(self, "eval_freq", "checkpoint_seconds")
        if self.episode_ends not in ("drop", "self", "reference"):
            raise ConfigError(f"episode_ends {self.episode_ends!r}: expected drop, self or reference")
        if self.hide_velocities and not self.normalise:
            raise ConfigError("hide_velocities: expected normalise too, which is what hides them")

    @property
    def kind(self) -> str:
        """The learner's name in `corl.learners.LEARNERS`."""
        return ALGORITHMS[self.algorithm][0]

    @property
    def learner(self) -> Any:
        """The algorithm's settings."""
        return self.learners[self.kind]

    @property
    def networks(self) -> str:
        """Of which kind its networks are: `mlp` or one of `corl.factored`."""
        return ALGORITHMS[self.algorithm][1]
