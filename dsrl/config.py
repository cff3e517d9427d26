"""Settings of behaviour cloning and of steering: per-task YAML under `config/dsrl/`, flags over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dsrl.critics import BACKUPS
from dsrl.demos import DATA_FILES
from dsrl.denoising import SPACINGS, ddim_times
from dsrl.normalizer import RELATIVE_QUATERNION
from dsrl.tasks import standard_task
from envs.robomimic.arguments import TASK_SERIES
from runtime.checks import expect_range
from runtime.config import from_mapping, load_yaml
from runtime.errors import ConfigError, DataError
from runtime.program import PROJECT_ROOT

T = TypeVar("T")
WARM_NOISE = ("clipped", "truncated")
_FOLDER = PROJECT_ROOT / "config" / "dsrl"


@dataclass(frozen=True)
class DiffusionBCConfig:
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
        standard_task(self.task)
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
            f"{_where_from(self.task)} or give --data_path"
        )

    @property
    def save_folder(self) -> Path:
        return Path(self.save_dir or f"checkpoints/bc/{self.task}")


def _where_from(task: str) -> str:
    if task in TASK_SERIES:
        return f"demonstrations of {task} are published files alone: put {DATA_FILES[0]} there"
    return f"record one with `python -m dsrl.collect_demos --tasks {task}`"


@dataclass(frozen=True)
class DSRLConfig:
    """Steering of one task's cloned policy. Steps are control steps of all environments together (20 per second).

    The replay buffer starts with `initial_steps` of the cloned policy, w ~ N(0, I) clipped to +-`action_magnitude`;
    `train_steps` of SAC follow, with `utd` gradient steps after each decision of all `num_envs` environments. A success
    ends the episode, or with `until_success` off must be kept up to the horizon. Every `eval_every` steps
    `eval_episodes` fixed episodes are run; the best actor is tried at the end on `fresh_episodes` others, as is the
    cloned policy. `algorithm` is `sac` or `na`, where `distill_steps` counts. A cloned policy below `least_base_rate`
    in its first rollouts is not worth steering: training stops. Defaults are the public DSRL code's where the README
    names nothing else.

    A control step gives the environment's reward less `reward_offset`: with 1, one that leaves a task of Robomimic
    unsolved costs 1. With `discount` and `reward_scale` that bounds the values. `policy_delay`, `n_step`, `backup`,
    `backup_critics`, `backup_entropy`, `offline_share`: see `UpdateRule`; where a success is dozens of decisions away,
    news of it would take too many gradient steps one decision at a time. `distill_steps`, `distill_pairs`,
    `refresh_share`: see `Distillation`, of `na`.

    The `critics` have a LayerNorm behind each hidden layer with `critic_layer_norm`. `warm_noise`: noise beyond the
    bounds is `clipped` to them in the warm start, or drawn anew (`truncated`). `critic_warmup` gradient steps of the
    critics alone follow the warm start. `ent_coef` is a number, or `auto_NUMBER`, from which it is learned towards
    `target_entropy`. `offline_data`: demonstrations (`na`), or a replay buffer that another run kept.

    `eval_envs` environments run the evaluations (0: as many as episodes, 20 at most), in `eval_workers` processes.
    Every `checkpoint_every` control steps of training (0: never) the present actor is kept as
    `checkpoints/sac_<steps>.zip`, with `keep_buffer` the replay buffer too.
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
    reward_offset: float = 1.0
    n_step: int = 1
    critics: int = 2
    critic_layer_norm: bool = True
    backup: str = "min"
    backup_critics: int = 2
    backup_entropy: bool = True
    warm_noise: str = "clipped"
    critic_warmup: int = 0
    offline_data: str = ""
    offline_share: float = 0.0
    distill_steps: int = 10
    distill_pairs: int = 0
    refresh_share: float = 1.0
    checkpoint_seconds: float = 60.0
    checkpoint_every: int = 0
    keep_buffer: bool = False
    eval_every: int = 20_000
    eval_envs: int = 0
    eval_workers: int = 0
    eval_episodes: int = 20
    fresh_episodes: int = 100
    least_base_rate: float = 0.02
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        standard_task(self.task)
        if self.algorithm not in ("sac", "na"):
            raise ConfigError(f"algorithm {self.algorithm!r}: expected sac or na")
        if self.spacing not in ("", *SPACINGS):
            raise ConfigError(f"spacing {self.spacing!r}: expected one of {', '.join(SPACINGS)}, or none")
        if self.backup not in BACKUPS or self.warm_noise not in WARM_NOISE:
            raise ConfigError(
                f"backup {self.backup!r}, warm_noise {self.warm_noise!r}: "
                f"expected one of {', '.join(BACKUPS)}, and of {', '.join(WARM_NOISE)}"
            )
        counts = ("train_steps", "utd", "num_envs", "horizon", "batch_size", "eval_every", "critics", "backup_critics")
        counts += ("eval_episodes", "fresh_episodes", "distill_steps", "policy_delay", "n_step", "ddim_steps")
        expect_range(self, *counts, "hidden_dims", least=1)
        expect_range(self, "action_magnitude", "reward_scale", "learning_rate", above=True)
        expect_range(self, "discount", "tau", most=1, above=True)
        expect_range(self, "least_base_rate", most=1)
        expect_range(self, "checkpoint_seconds", "initial_steps", "critic_warmup", "distill_pairs", "checkpoint_every")
        expect_range(self, "eval_envs", "eval_workers")
        expect_range(self, "refresh_share", most=1, above=True)
        expect_range(self, "offline_share", most=1, below=True)
        expect_range(self, "target_entropy", "reward_offset", least=-math.inf)
        if self.backup_critics > self.critics:
            raise ConfigError(f"backup_critics {self.backup_critics}: expected 1 to {self.critics} (critics)")
        if self.offline_share and not self.offline_data:
            raise ConfigError(f"offline_share {self.offline_share}: expected offline_data too, of which it is")
        if self.critic_warmup and not self.initial_steps and not self.offline_data:
            raise ConfigError(f"critic_warmup {self.critic_warmup}: expected initial_steps or offline_data")
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
    standard_task(task)
    usual = _FOLDER / f"{stage}_{task.lower()}.yaml"
    if file is None and not usual.exists():
        return from_mapping(cls, {"task": task, **given}, source="flags")
    return load_yaml(cls, file or usual, {"task": task, **given})
