"""A policy and a task that are none of this project's: what steering takes from a user's own code."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from torch import Tensor

from envs.chunked_env import ChunkedEnv


class Aim(gymnasium.Env):
    """The reward is the nearer the action (2,) is to the point seen (2,); an episode has three points."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point, self.left = self.np_random.uniform(-1, 1, 2).astype(np.float32), 3
        return self.point, {}

    def step(self, action):
        miss = float(np.abs(action - self.point).mean())
        self.point, self.left = self.np_random.uniform(-1, 1, 2).astype(np.float32), self.left - 1
        return self.point, 1.0 - miss, False, self.left == 0, {}


@dataclass(frozen=True)
class AimTask:
    name: str = "aim"

    def make_env(self, *, horizon, chunk, keys, until_success):
        return ChunkedEnv(
            Aim(), horizon=horizon, chunk=chunk, until_success=until_success, solved=lambda total, _: total > 2.4
        )


class Throw:
    """Throws anywhere: the action follows from three numbers of noise, one of which does nothing."""

    task, source, identity = AimTask(), "a throw", "throw-1"
    device, keys = torch.device("cpu"), ()
    chunk, feature_dim, noise_dim, chunk_dim = 1, 2, 3, 2

    def features(self, observation: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(observation, dtype=torch.float32)

    def denoise(self, seen: Tensor, w: Tensor) -> Tensor:
        return (0.4 * w[:, :2]).clamp(-1, 1)

    def to_actions(self, chunk: Tensor) -> np.ndarray:
        return chunk.numpy()
