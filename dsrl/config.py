"""Settings of behaviour cloning and of steering: per-task YAML under `config/dsrl/`, flags over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from dsrl.demos import DATA_FILES
from dsrl.schedule import SPACINGS, ddim_times
from dsrl.tasks import standard_task
from envs.robomimic.arguments import TASK_SERIES
from runtime.checks import expect_range
from runtime.config import from_mapping, load_yaml
from runtime.errors import ConfigError, DataError
from runtime.flags import alias
from runtime.program import PROJECT_ROOT

T = TypeVar("T")
WARM_NOISE = ("clipped", "truncated")
BACKUPS = ("min", "mean", "subset")
RELATIVE_QUATERNION = ("raw", "six", "drop")
_FOLDER = PROJECT_ROOT / "config" / "dsrl"


@dataclass(frozen=True)
class DiffusionBCConfig:
    """Cloning of one task by a diffusion policy. Defaults are the project's README and DPPO's MLP recipe (2024)."""

    task: str = "lift"
    """lift, can, square, tool_hang, transport, or a MuJoCo task of gymnasium such as Hopper-v5"""
    data_path: str = ""
    """HDF5 file of demonstrations; default: what is found under datasets/"""
    save_dir: str = ""
    """folder of the checkpoints; default checkpoints/bc/{task}"""
    filter_key: str = ""
    """mask of the demonstrations to learn from, such as train; empty: all"""
    num_demos: int = 0
    """take the first so many of them (0: all)"""
    pred_horizon: int = 4
    """actions per chunk, which are predicted and executed open loop"""
    pad: bool = True
    """repeat a demonstration's last action, so that chunks begin up to its end"""
    relative_quaternion: str = "raw"
    """raw, six or drop: what is seen of an object's rotation relative to the hand"""
    env_check: bool = True
    """refuse files of an environment that is not built here; else robosuite 1.4's usual one stands for it"""
    diffusion_steps: int = 100
    """times of the noise schedule"""
    ddim_steps: int = 10
    """sampling steps that evaluation takes by default"""
    spacing: str = "leading"
    """leading or trailing sampling times"""
    hidden_dims: tuple[int, ...] = (1024, 1024, 1024)
    """widths of the network's layers"""
    time_dim: int = 16
    """size of the time's embedding"""
    epochs: int = 3000
    """passes over the data"""
    batch_size: int = 256
    """samples per gradient step"""
    learning_rate: float = 1e-4
    """at its highest"""
    final_learning_rate: float = 1e-5
    """after the last epoch, by a cosine"""
    warmup_epochs: float = 100
    """until the learning rate is at its highest"""
    weight_decay: float = 1e-6
    """of AdamW"""
    ema_decay: float = 0.995
    """of the averaged weights"""
    ema_every: int = 10
    """gradient steps between two updates of the averaged weights"""
    save_every: int = 500
    """epochs between checkpoints"""
    seed: int = 0
    """of weights, order and noise"""
    device: str = "auto"
    """auto, cpu or cuda[:N]"""
    precision: str = "auto"
    """auto, float32 or bfloat16"""
    checkpoint_seconds: float = 60.0
    """between two writings of where to continue"""

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

    The best actor on the fixed episodes is tried at the end on the fresh ones, as is the cloned policy. Defaults are
    the public DSRL code's where the README names nothing else. `discount` with `reward_scale` and `reward_offset`
    bounds the values. `policy_delay`, `n_step`, `backup`, `backup_critics`, `backup_entropy`, `offline_share`: see
    `UpdateRule`; where a success is dozens of decisions away, news of it would take too many gradient steps one
    decision at a time. `distill_steps`, `distill_pairs`, `refresh_share`: see `Distillation`.
    """

    task: str = "lift"
    """that of the cloned policy"""
    algorithm: str = "sac"
    """sac, or na (noise aliasing: fewer steps, more computing)"""
    save_dir: str = ""
    """folder; default checkpoints/dsrl/{task}"""
    action_magnitude: float = 1.0
    """bound of every number of the noise"""
    ddim_steps: int = 10
    """sampling steps"""
    spacing: str = ""
    """leading or trailing sampling times; default: the checkpoint's"""
    initial_steps: int = 320_000
    """of the cloned policy, w ~ N(0, I) within the bounds, to fill the replay buffer"""
    max_timesteps: Annotated[int, alias("train_steps")] = 100_000
    """of training, after the initial ones"""
    utd: int = 20
    """gradient steps after each decision of all environments"""
    num_envs: int = 4
    """environments side by side"""
    workers: bool = False
    """a process for each environment"""
    horizon: int = 400
    """control steps per episode"""
    until_success: bool = True
    """a success ends the episode; else it must be kept up to the horizon"""
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    """widths of actor and critics"""
    learning_rate: float = 3e-4
    """of actor, critics and entropy's weight"""
    batch_size: int = 256
    """decisions per gradient step"""
    discount: float = 0.99
    """per decision"""
    tau: float = 0.005
    """step of the target critics"""
    ent_coef: str = "auto_1.0"
    """the entropy's weight: a number, or auto_NUMBER, from which it is learned"""
    target_entropy: float = 0.0
    """towards which"""
    policy_delay: int = 1
    """gradient steps of the critics to one of actor and entropy's weight"""
    reward_scale: float = 1.0
    """of rewards, offset included"""
    reward_offset: float = 1.0
    """taken off for each control step: with 1, one that leaves a task of Robomimic unsolved costs 1"""
    n_step: int = 1
    """decisions whose rewards stand in a target"""
    critics: int = 2
    """how many"""
    critic_layer_norm: bool = True
    """a LayerNorm behind each of the critics' hidden layers"""
    backup: str = "min"
    """what a target takes of the critics' values: min, mean, or the minimum of a random subset"""
    backup_critics: int = 2
    """size of that subset"""
    backup_entropy: bool = True
    """the target counts the entropy"""
    warm_noise: str = "clipped"
    """clipped or truncated (drawn anew): noise beyond the bounds in the warm start"""
    critic_warmup: int = 0
    """gradient steps of the critics alone after the warm start"""
    offline_data: str = ""
    """demonstrations (.hdf5, for na) or a kept replay buffer (.npz) to learn from too"""
    offline_share: float = 0.0
    """share of each batch that is offline data; 0: as its number says"""
    distill_steps: int = 10
    """of na: gradient steps of the noise critic per update"""
    distill_pairs: int = 0
    """of na: noises denoised once per stored decision for these; 0: new ones in each step"""
    refresh_share: float = 1.0
    """of na: share of a batch whose next chunk is denoised anew; the others' is the last one"""
    checkpoint_seconds: float = 60.0
    """between two writings of where to continue"""
    checkpoint_every: int = 0
    """keep the actor as checkpoints/sac_<steps>.zip every so many steps of training; 0: never"""
    keep_buffer: bool = False
    """keep the replay buffer beside it"""
    eval_freq: Annotated[int, alias("eval_every")] = 20_000
    """steps between evaluations"""
    eval_envs: int = 0
    """environments side by side that run the evaluations; 0: one per episode, 20 at most"""
    eval_workers: int = 0
    """processes that step these; 0: this one"""
    n_episodes: Annotated[int, alias("eval_episodes")] = 20
    """fixed episodes of each evaluation"""
    fresh_episodes: int = 100
    """other episodes for the final figures"""
    least_base_rate: float = 0.02
    """a cloned policy that solves less in its first rollouts is not worth steering: training stops"""
    seed: int = 0
    """of networks, starts and noise"""
    device: str = "auto"
    """auto, cpu or cuda[:N]"""

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
        expect_range(self, "max_timesteps", "utd", "num_envs", "horizon", "batch_size", "eval_freq", least=1)
        expect_range(self, "critics", "backup_critics", "n_episodes", "fresh_episodes", "distill_steps", least=1)
        expect_range(self, "policy_delay", "n_step", "ddim_steps", "hidden_dims", least=1)
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
    """Settings of `stage` (`bc`, `dsrl`) from `file` or `config/dsrl/{stage}_{task}.yaml`, with flags over it."""
    standard_task(task)
    usual = _FOLDER / f"{stage}_{task.lower()}.yaml"
    if file is None and not usual.exists():
        return from_mapping(cls, {**overrides, "task": task}, source="flags")
    return load_yaml(cls, file or usual, {**overrides, "task": task})
