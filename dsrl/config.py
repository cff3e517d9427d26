"""Settings of behaviour cloning and of steering: per-task YAML under `config/dsrl/`, flags over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dsrl.demos import DATA_FILES
from dsrl.denoising import SPACINGS, ddim_times
from dsrl.normalizer import RELATIVE_QUATERNION
from envs.robomimic.task import RobomimicTask
from runtime.config import from_mapping, load_yaml
from runtime.errors import ConfigError, DataError, expect_range
from runtime.program import PROJECT_ROOT

T = TypeVar("T")
_FOLDER = PROJECT_ROOT / "config" / "dsrl"


@dataclass(frozen=True)
class BCConfig:
    """Behaviour cloning of one task. Defaults are the project's README and DPPO's MLP recipe (2024).

    `filter_key` names a mask of the data file (empty: all demonstrations), `num_demos` takes the first so many of them
    (0: all). `pred_horizon` actions are predicted and executed open loop. Evaluation takes `ddim_steps` and `spacing`
    unless told otherwise. `relative_quaternion`: see `dsrl.normalizer`. `env_check` off lets files of an environment
    that is not built here be trained on; the usual one of robosuite 1.4 then stands for it. Where to
    continue is written every `checkpoint_seconds`.
    """

    task: str = "lift"
    data_path: str = ""
    save_dir: str = ""
    filter_key: str = ""
    num_demos: int = 0
    pred_horizon: int = 4
    pad: bool = True
    relative_quaternion: str = "raw"
    env_check: bool = True
    diffusion_steps: int = 100
    ddim_steps: int = 10
    spacing: str = "leading"
    hidden_dims: tuple[int, ...] = (1024, 1024, 1024)
    time_dim: int = 16
    epochs: int = 3000
    batch_size: int = 256
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-5
    warmup_epochs: float = 100
    weight_decay: float = 1e-6
    ema_decay: float = 0.995
    ema_every: int = 10
    save_every: int = 500
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        RobomimicTask.standard(self.task)
        ddim_times(self.diffusion_steps, self.ddim_steps, self.spacing)
        expect_range(self, "pred_horizon", "time_dim", "epochs", "batch_size", "ema_every", "save_every", least=1)
        expect_range(self, "hidden_dims", least=1)
        expect_range(self, "learning_rate", above=True)
        expect_range(self, "ema_decay", most=1, below=True)
        expect_range(self, "num_demos", "checkpoint_seconds")
        if self.spacing not in SPACINGS or self.relative_quaternion not in RELATIVE_QUATERNION:
            raise ConfigError(
                f"spacing {self.spacing!r}, relative_quaternion {self.relative_quaternion!r}: "
                f"expected one of {', '.join(SPACINGS)}, and of {', '.join(RELATIVE_QUATERNION)}"
            )

    @property
    def data_file(self) -> Path:
        """`data_path`, or the first of the usual places that has a file; the published data before scripted ones."""
        if self.data_path:
            return Path(self.data_path)
        folder = Path("datasets") / self.task
        places = [folder / kind / name for name in DATA_FILES for kind in ("ph", "scripted")]
        for place in places:
            if place.exists():
                return place
        raise DataError(
            f"{folder}: no data set (looked for ph/{DATA_FILES[0]} and scripted/{DATA_FILES[-1]}); "
            f"record one with `python -m dsrl.collect_demos --tasks {self.task}` or give --data_path"
        )

    @property
    def save_folder(self) -> Path:
        return Path(self.save_dir or f"checkpoints/bc/{self.task}")


@dataclass(frozen=True)
class DSRLConfig:
    """Steering of one task's cloned policy. Steps are control steps of all environments together (20 per second).

    The replay buffer starts with `initial_steps` of the cloned policy, w ~ N(0, I) clipped to +-`action_magnitude`;
    `train_steps` of SAC follow, with `utd` gradient steps after each decision of all `num_envs` environments. A success
    ends the episode, or with `until_success` off must be kept up to the horizon. Every `eval_every` steps
    `eval_episodes` fixed episodes are run; the best actor is tried at the end on `fresh_episodes` others, as is the
    cloned policy. `algorithm` is `sac` or `na`, where `distill_steps` counts. A cloned policy below `least_base_rate`
    in its first rollouts is not worth steering: training stops. The actor learns in every `policy_delay`-th gradient
    step. A chunk that solves nothing costs `reward_scale` per control step; with `discount` that bounds the values.
    `decisions_ahead` rewards stand in a critic's target before the bootstrapped value: where a success is dozens of
    decisions away, news of it would take too many gradient steps one decision at a time.
    """

    task: str = "lift"
    algorithm: str = "sac"
    save_dir: str = ""
    action_magnitude: float = 1.0
    ddim_steps: int = 10
    spacing: str = ""
    initial_steps: int = 320_000
    train_steps: int = 100_000
    utd: int = 20
    num_envs: int = 4
    workers: bool = False
    horizon: int = 400
    until_success: bool = True
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    discount: float = 0.99
    tau: float = 0.005
    ent_coef: str = "auto_1.0"
    target_entropy: float = 0.0
    policy_delay: int = 1
    reward_scale: float = 1.0
    decisions_ahead: int = 1
    distill_steps: int = 2
    checkpoint_seconds: float = 60.0
    eval_every: int = 20_000
    eval_episodes: int = 20
    fresh_episodes: int = 100
    least_base_rate: float = 0.02
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        RobomimicTask.standard(self.task)
        if self.algorithm not in ("sac", "na"):
            raise ConfigError(f"algorithm {self.algorithm!r}: expected sac or na")
        if self.spacing not in ("", *SPACINGS):
            raise ConfigError(f"spacing {self.spacing!r}: expected one of {', '.join(SPACINGS)}, or none")
        counts = ("initial_steps", "train_steps", "utd", "num_envs", "horizon", "batch_size", "eval_every")
        counts += ("eval_episodes", "fresh_episodes", "distill_steps", "policy_delay", "decisions_ahead", "ddim_steps")
        expect_range(self, *counts, "hidden_dims", least=1)
        expect_range(self, "action_magnitude", "reward_scale", "learning_rate", above=True)
        expect_range(self, "discount", "tau", most=1, above=True)
        expect_range(self, "least_base_rate", most=1)
        expect_range(self, "checkpoint_seconds")
        expect_range(self, "target_entropy", least=-math.inf)
        expect_range(self, "seed", most=2**32 - 1)
        if not _is_entropy_weight(self.ent_coef):
            raise ConfigError(f"ent_coef {self.ent_coef!r}: expected auto, auto_NUMBER (where it starts) or a number")

    @property
    def save_folder(self) -> Path:
        return Path(self.save_dir or f"checkpoints/dsrl/{self.task}")


def _is_entropy_weight(text: str) -> bool:
    """Whether stable-baselines3 reads it as one: `auto`, `auto_1.0` or a number."""
    try:
        start = 1.0 if text == "auto" else float(text.removeprefix("auto_"))
    except ValueError:
        return False
    return 0 < start < math.inf or text == "0"


def load_task_config(cls: type[T], stage: str, task: str, file: Path | None, overrides: Mapping[str, Any]) -> T:
    """Settings of `stage` (`bc`, `dsrl`) from `file` or `config/dsrl/{stage}_{task}.yaml`, with flags over it.

    A flag that is None was not given.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    RobomimicTask.standard(task)
    usual = _FOLDER / f"{stage}_{task}.yaml"
    if file is None and not usual.exists():
        return from_mapping(cls, {"task": task, **given}, source="flags")
    return load_yaml(cls, file or usual, {"task": task, **given})
