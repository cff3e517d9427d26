"""Flags that the commands have: every setting of cloning and steering, and which policy acts in which episodes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.config import DiffusionBCConfig, DSRLConfig
from runtime.checks import expect_sizes
from runtime.errors import ConfigError
from runtime.flags import ConfigFlags

if TYPE_CHECKING:
    from dsrl.diffusion_policy import DiffusionPolicy
    from dsrl.rollout import ChooseNoise

# Worker processes import their parent's script: what needs torch is imported where it is needed.


@dataclass(frozen=True)
class TaskConfigFlags(ConfigFlags):
    """Flags of a configuration of which every field is one; to be inherited from, before the configuration itself.

    What cannot be is found where flags and file have come together (`dsrl.config.load_task_config`).
    """

    config: Path | None = None
    """YAML file of settings; default: the task's in config/dsrl/"""

    def __post_init__(self) -> None:
        """Nothing is checked yet."""

    @classmethod
    def setting_keys(cls) -> dict[str, str]:
        own = {field.name for field in fields(TaskConfigFlags)}
        return {field.name: field.name for field in fields(cls) if field.name not in own}


@dataclass(frozen=True)
class CloningFlags(TaskConfigFlags, DiffusionBCConfig):
    """Every setting of behaviour cloning."""


@dataclass(frozen=True)
class SteeringFlags(TaskConfigFlags, DSRLConfig):
    """Every setting of steering."""

    task: str = ""
    """refuse a checkpoint of another task"""


@dataclass(frozen=True)
class PolicyFlags:
    """Who acts: a cloned policy, its noise being from N(0, I) or chosen by SAC."""

    checkpoint: Path
    """state_{epoch}.pt of the cloned policy"""
    task: str | None = None
    """refuse a checkpoint of another task"""
    sac: Path | None = None
    """sac_best.zip that chooses the noise; default: noise from N(0, I)"""
    deterministic: bool = False
    """take the mean of the SAC policy"""
    ddim_steps: int | None = None
    """sampling steps; default: the checkpoint's"""
    spacing: str | None = None
    """leading or trailing sampling times; default: the checkpoint's"""
    eta: float = 0.0
    """0 makes sampling deterministic given its first noise"""
    use_ema: bool = True
    """averaged weights rather than the last ones"""
    device: str = "auto"
    """auto, cpu or cuda[:N]"""

    def check(self) -> None:
        """Raises `ConfigError` for flags that contradict each other."""
        if self.deterministic and not self.sac:
            raise ConfigError("--deterministic: expected --sac too, whose mean it takes")

    def load(self) -> tuple[DiffusionPolicy, ChooseNoise | None]:
        """The policy, and what chooses its noise (None: the prior).

        Raises `ConfigError` for a checkpoint of another task, `DataError` for what is none.
        """
        from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
        from dsrl.noise_env import load_actor
        from runtime.device import pick_device

        self.check()
        opened = Checkpoint.read(self.checkpoint)
        opened.expect_task(self.task)
        policy = DiffusionPolicy(
            opened,
            ddim_steps=self.ddim_steps,
            spacing=self.spacing,
            eta=self.eta,
            device=pick_device(self.device),
            use_ema=self.use_ema,
        )
        return policy, load_actor(self.sac, policy, deterministic=self.deterministic) if self.sac else None

    @property
    def name(self) -> str:
        """Who acts, so that one policy's figures do not take the place of another's: `state_3000_lift_sac_best`.

        Models of all steering runs have the same file name; their folder tells them apart.
        """
        parts = [self.checkpoint.stem] if self.use_ema else [self.checkpoint.stem, "last_weights"]
        if self.sac:
            parts += [self.sac.resolve().parent.name, self.sac.stem]
        return "_".join([*parts, "mean"] if self.deterministic else parts)


@dataclass(frozen=True)
class EpisodeFlags:
    """Which episodes."""

    n_episodes: int = 20
    """episodes, each with a seed of its own"""
    horizon: int | None = None
    """control steps per episode; default: the task's"""
    seed: int = 0
    """of start states and noise"""

    def check(self) -> None:
        """Raises `ConfigError` for sizes that cannot be."""
        expect_sizes(n_episodes=self.n_episodes, **({} if self.horizon is None else {"horizon": self.horizon}))
