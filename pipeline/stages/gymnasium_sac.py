"""SAC on one of gymnasium's MuJoCo tasks as a stage, by the learner that CompoSuite's tasks have."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
import torch

from corl.online import OnlineScores
from corl.online_config import RUNTIME_SETTINGS, OnlineConfig
from corl.online_replay import RowCode
from corl.sac import SAC, SACConfig
from envs.gymnasium_task import GymnasiumTask
from pipeline.stages.online import OnlineStage, Tracking
from runtime.config import config_hash, dict_without
from runtime.device import autocast_dtype


@dataclass(frozen=True)
class LearnGymnasium(OnlineStage):
    """SAC from scratch. An episode counts as solved where its return reaches the task's `success_return`."""

    task: GymnasiumTask
    config: OnlineConfig
    seed: int
    folder: Path
    tracking: Tracking = field(default_factory=Tracking)
    method: str = "SAC"  # its name in tables of scores
    device: str = "auto"

    def key(self) -> str:
        return config_hash([self.task.env_args, dict_without(self.config, RUNTIME_SETTINGS), self.seed])

    def _learn(self, key: str, device: torch.device) -> OnlineScores:
        code = RowCode(self.task.observation_dim(), self.task.action_dim)
        agent = SAC.build(
            code.dim,
            code.action_dim,
            in_units_of(self.task, self.config.sac),
            seed=self.seed,
            device=device,
            dtype=autocast_dtype(device, self.config.precision),
        )
        return self._train(agent, code, None, key=key, device=device)


def in_units_of(task: GymnasiumTask, config: SACConfig) -> SACConfig:
    """The configuration whose target entropy, of actions in [-1, 1], is that of the task's actions as they are.

    A density over actions that are c times as wide is less by log c per number: CleanRL's correction has this factor.
    """
    env = gymnasium.make(task.name)
    space = env.action_space
    env.close()
    assert isinstance(space, gymnasium.spaces.Box)  # MuJoCo's tasks have no others
    half = (np.asarray(space.high, np.float64) - space.low) / 2
    return dataclasses.replace(config, entropy_per_action=float(config.entropy_per_action - np.log(half).mean()))
