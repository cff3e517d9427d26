"""What can be steered: any policy that is a function of observation and noise."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import torch
from torch import Tensor


class SteerableTask(Protocol):
    """Where a policy acts: a value that can be sent to other processes.

    Its environment steps in chunks: an action is all that one call of the policy plans; a step's reward is the sum
    over the control steps that were executed, `info["executed"]` their number and `info["success"]` whether the task
    was solved after any of them. It has `snapshot` and `restore` (plain values and arrays; what follows is equal to the
    last bit) and `np_random_seed`. `envs.chunked_env.ChunkedEnv` makes one of any gymnasium environment.
    """

    name: str

    def make_env(
        self, *, horizon: int | None, chunk: int, keys: tuple[str, ...], until_success: bool
    ) -> gymnasium.Env: ...


class SteerablePolicy(Protocol):
    """A frozen policy whose actions follow from the observation and a vector of noise, and from nothing else.

    Noise that the policy was trained with must be N(0, I). `identity` is another for other weights: a run is continued,
    and a steering actor used, for the same alone. `source` names it in messages (its file). `keys` are given to the
    task's environment as they are. `dsrl.diffusion_policy.DiffusionPolicy` is one.
    """

    task: Any
    """A `SteerableTask`, or one that `envs.make` knows."""
    source: str
    device: torch.device
    keys: tuple[str, ...]
    chunk: int
    """Control steps that are planned at once."""
    feature_dim: int
    """F, numbers that the steering actor sees."""
    noise_dim: int
    """W, numbers of noise."""
    chunk_dim: int
    """C, numbers of a planned chunk, as `denoise` gives it."""

    @property
    def identity(self) -> str: ...

    def features(self, observation: np.ndarray | Tensor) -> Tensor:
        """Raw observations (B, D) to what policy and steering actor see (B, F) float32, about within [-5, 5]."""
        ...

    def denoise(self, seen: Tensor, w: Tensor) -> Tensor:
        """Features (B, F) and noise (B, W) to chunks (B, C) float32 of about [-1, 1]; row by row, without gradient."""
        ...

    def to_actions(self, chunk: Tensor) -> np.ndarray:
        """Chunks (B, C) to actions of the task's environment (B, chunk * A) float32 in [-1, 1]."""
        ...


@runtime_checkable
class InvertiblePolicy(SteerablePolicy, Protocol):
    """A `SteerablePolicy` that tells the chunk of given actions: demonstrations can be its offline data."""

    def to_chunk(self, actions: np.ndarray) -> Tensor:
        """Actions of the task's environment (B, chunk * A) to chunks (B, C), as `denoise` gives them."""
        ...
