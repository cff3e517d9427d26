"""The frozen policy: from raw observations and noise to chunks of actions; checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsrl.denoising import FastSampler, NoisePredictor, cosine_alpha_bar, ddim
from dsrl.normalizer import BOUND, MinMax, feature_columns, features
from dsrl.schedule import ddim_times
from dsrl.tasks import Task, task_of
from runtime.atomic import checksum
from runtime.checkpoint import build_within, entry, load_checkpoint, load_weights, vector
from runtime.errors import ConfigError, DataError

_MOST = 100_000  # of steps and sizes
_KINDS: dict[str, type | tuple[type, ...]] = {
    "model": Mapping,
    "ema": Mapping,
    "obs_normalizer": Mapping,
    "action_normalizer": Mapping,
    "obs_keys": (list, tuple),
    "args": Mapping,
    "env_args": str,
}
_ARGUMENTS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "pred_horizon": int,
    "ddim_steps": int,
    "spacing": str,
    "relative_quaternion": str,
    "hidden_dims": (list, tuple),
    "time_dim": int,
    "diffusion_steps": int,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a `state_{epoch}.pt` holds, checked; `args` are all settings of its training."""

    path: Path
    contents: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Raises `DataError` for a missing or damaged file and for one that is not a policy of this project."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such checkpoint; train one with `python -m dsrl.train_bc`")
        contents = load_checkpoint(path)
        needed = {"model", "ema", "obs_normalizer", "action_normalizer", "obs_keys", "args", "env_args", "epoch"}
        missing = sorted(needed - set(contents))
        if missing:
            raise DataError(f"{path}: not a checkpoint of a diffusion policy (no {', '.join(missing)})")
        for name, kind in _KINDS.items():
            entry(contents, name, kind, path)
        for name, kind in _ARGUMENTS.items():
            entry(contents["args"], name, kind, path)
        for name in ("pred_horizon", "ddim_steps", "time_dim", "diffusion_steps"):
            if not 0 < contents["args"][name] <= _MOST:
                raise DataError(f"{path}: {name} {contents['args'][name]}, expected 1 to {_MOST:,}")
        if not all(type(size) is int and size > 0 for size in contents["args"]["hidden_dims"]):
            raise DataError(f"{path}: hidden_dims are {contents['args']['hidden_dims']}, expected sizes of layers")
        for name in ("obs_normalizer", "action_normalizer"):
            size = entry(contents[name], "low", Tensor, path).numel()
            for bound in ("low", "high"):
                vector(contents[name], bound, size, path)
        if not all(isinstance(key, str) for key in contents["obs_keys"]):
            raise DataError(f"{path}: obs_keys are {contents['obs_keys']}, expected names of observations")
        opened = cls(path, contents)
        found, expected = len(contents["action_normalizer"]["low"]), opened.task.action_dim
        if found != expected:
            raise DataError(f"{path}: made for actions of {found} numbers, expected {expected} for {opened.task}")
        return opened

    @property
    def args(self) -> dict[str, Any]:
        args: dict[str, Any] = self.contents["args"]
        return args

    @property
    def task(self) -> Task:
        return task_of(self.contents["env_args"], str(self.path))

    def expect_task(self, name: str | None) -> None:
        """Raises `ConfigError` unless the checkpoint is of the task `name` (None: any)."""
        if name and name != self.args["task"]:
            raise ConfigError(f"{self.path}: a policy of the task {self.args['task']!r}, not of {name!r}")


class DiffusionPolicy:
    """w (B, A) and observations (B, D) to chunks (B, A), A = pred_horizon * actions; the same input, the same chunk.

    A `SteerablePolicy`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        ddim_steps: int | None = None,
        spacing: str | None = None,
        eta: float = 0.0,
        device: torch.device | None = None,
        use_ema: bool = True,
    ) -> None:
        contents, args = checkpoint.contents, checkpoint.args
        self.checkpoint, self.task = checkpoint, checkpoint.task
        self.device = device or torch.device("cpu")
        self.keys = tuple(contents["obs_keys"])
        self.chunk, self.action_dim = args["pred_horizon"], args["pred_horizon"] * self.task.action_dim
        self.noise_dim = self.chunk_dim = self.action_dim
        self.source = str(checkpoint.path)
        self.ddim_steps = args["ddim_steps"] if ddim_steps is None else ddim_steps
        self.spacing, self.eta = spacing or args["spacing"], eta
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta {eta}: expected 0 (no noise between steps) to 1 (DDPM's)")
        self.obs_normalizer = MinMax(**contents["obs_normalizer"]).to(self.device)
        self.action_normalizer = MinMax(**contents["action_normalizer"]).to(self.device)
        self.feature_dim = len(self.obs_normalizer.low)
        self._relative = args["relative_quaternion"]
        self._columns = feature_columns(self.task, self.keys, self._relative)
        sizes = (self.action_dim, self.feature_dim, args["hidden_dims"], args["time_dim"])
        network = build_within(checkpoint.path, lambda: NoisePredictor(*sizes))
        weights = "ema" if use_ema else "model"
        load_weights(network, contents[weights], checkpoint.path, weights)
        self.network = network.to(self.device).eval().requires_grad_(False)
        alpha_bar = cosine_alpha_bar(args["diffusion_steps"]).to(self.device)
        self._alpha_bar, self._times = alpha_bar, ddim_times(args["diffusion_steps"], self.ddim_steps, self.spacing)
        self.sample = FastSampler(self.network, alpha_bar, self._times)

    @classmethod
    def load(cls, path: Path, **options: Any) -> DiffusionPolicy:
        return cls(Checkpoint.read(path), **options)

    def features(self, observation: np.ndarray | Tensor) -> Tensor:
        """(B, D) raw observations to (B, feature_dim) normalised ones, clamped to +-BOUND."""
        raw = torch.as_tensor(observation, dtype=torch.float32, device=self.device)
        return self.obs_normalizer.normalize(features(raw, self._columns, self._relative)).clamp(-BOUND, BOUND)

    def denoise(self, seen: Tensor, w: Tensor) -> Tensor:
        """Normalised observations (B, feature_dim) and noise (B, A) to normalised chunks (B, A) in [-1, 1]."""
        if self.eta:
            return ddim(self.network, w, seen, self._alpha_bar, self._times, self.eta)
        return self.sample(w, seen)

    def to_actions(self, chunk: Tensor) -> np.ndarray:
        """Normalised chunks (B, A) to the environment's actions (B, A) float32 in [-1, 1].

        Raises `DataError` where they are not finite."""
        actions = (
            self.action_normalizer.denormalize(chunk.view(-1, self.task.action_dim)).clamp(-1, 1).view(chunk.shape)
        )
        if not torch.isfinite(actions).all():
            raise DataError(f"{self.checkpoint.path}: gives actions that are not finite")
        return actions.cpu().numpy()

    def to_chunk(self, actions: np.ndarray) -> Tensor:
        """The environment's actions (B, A) to normalised chunks (B, A) in about [-1, 1], as `denoise` gives them."""
        raw = torch.as_tensor(actions, dtype=torch.float32, device=self.device)
        return self.action_normalizer.normalize(raw.view(-1, self.task.action_dim)).view(raw.shape)

    @functools.cached_property
    def identity(self) -> str:
        """Checksum of the checkpoint."""
        return checksum(self.checkpoint.path)

    def act(self, observation: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Raw observations (B, D) and noise (B, A) to actions (B, A)."""
        noise = torch.as_tensor(w, dtype=torch.float32, device=self.device)
        return self.to_actions(self.denoise(self.features(observation), noise))
