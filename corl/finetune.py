"""Going on online with an agent that was trained offline on many tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corl.batch import Batch
from corl.learner import Learner
from corl.learners import LEARNERS
from corl.multitask_learner import make_learner
from corl.multitask_run import load_config
from corl.online_replay import ObservationCode
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.errors import ConfigError

EXPLORATION_NOISE = 0.1
"""Standard deviation of the noise on a deterministic policy's actions (TD3's)."""


class OfflineAgent:
    """A multitask learner as an agent that acts and learns online."""

    def __init__(self, learner: Learner, *, gaussian: bool) -> None:
        self.learner, self.gaussian = learner, gaussian
        self.generator = learner.generator

    @torch.no_grad()
    def explore(self, observations: Tensor) -> Tensor:
        """A sample of a Gaussian policy, or the mean action with noise; (E, A) in [-1, 1]."""
        if self.gaussian:
            mean, log_std = self.learner.actor(observations, True).unbind(0)
            scale: Tensor = log_std.exp()
        else:
            mean, scale = self.learner.actor(observations), torch.tensor(EXPLORATION_NOISE)
        noise = torch.randn(mean.shape, generator=self.generator, device=mean.device)
        actions: Tensor = (mean + scale * noise).clamp(-1.0, 1.0)
        return actions

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> Tensor:
        actions: Tensor = self.learner.actor(observations)
        return actions

    def learn(self, batches: Batch, prior: int = 0) -> dict[str, Tensor]:
        """One update per leading index of a batch (U, B, ...); prior data count as the agent's own."""
        losses: dict[str, Tensor] = {}
        for k in range(len(batches.rewards)):
            losses |= self.learner.update(Batch(*(part[k] for part in batches)))
        return losses

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state)


def load_agent(
    path: Path, layout: FactoredLayout, *, seed: int, device: torch.device
) -> tuple[OfflineAgent, ObservationCode]:
    """The agent of an offline checkpoint with its optimisers, and how it sees. Its random numbers are of `seed`.

    Raises `DataError` where the file is not one, `ConfigError` for behaviour cloning, which has nothing to learn from
    rewards.
    """
    config, checkpoint = load_config(path)
    if not LEARNERS[config.kind].uses_rewards:
        raise ConfigError(
            f"{path}: {config.algorithm} learns nothing from rewards, expected IQL or TD3+BC to fine-tune"
        )
    learner = make_learner(config, layout, seed=seed, device=device)
    generator = learner.generator.get_state()
    learner.load_state_dict(checkpoint)
    learner.generator.set_state(generator)
    learner.total_it = 0
    learner.max_steps = math.inf  # a learning rate that fell to 0 offline stays at its first value
    code = ObservationCode(StateTransform.load(checkpoint["states"], layout, f"{path}: states", with_ids=True))
    return OfflineAgent(learner, gaussian=getattr(config.learner, "gaussian", False)), code
