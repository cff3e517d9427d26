"""SAC on one of gymnasium's MuJoCo tasks as a stage, by the learner that CompoSuite's tasks have."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np

from corl.online import OnlineScores
from corl.online_config import RUNTIME_SETTINGS, OnlineConfig
from corl.online_replay import RowCode
from corl.sac import SAC, SACConfig
from envs.gymnasium_task import GymnasiumTask
from pipeline.jobs.stage import StageProgress, held, read_scores
from pipeline.stages.online import Tracking, finish, learn, online_progress
from pipeline.stages.paths import RESULT_FILE
from runtime.config import config_hash, dict_without
from runtime.cpus import use_threads
from runtime.device import autocast_dtype, pick_device


@dataclass(frozen=True)
class LearnGymnasium:
    """SAC from scratch. An episode counts as solved where its return reaches the task's `success_return`."""

    task: GymnasiumTask
    config: OnlineConfig
    seed: int
    folder: Path
    tracking: Tracking = field(default_factory=Tracking)
    method: str = "SAC"  # its name in tables of scores
    device: str = "auto"
    threads: int = 0

    @property
    def name(self) -> str:
        return f"online {self.task.name} seed {self.seed}"

    @property
    def output(self) -> Path:
        return self.folder / RESULT_FILE

    def key(self) -> str:
        return config_hash([self.task.env_args, dict_without(self.config, RUNTIME_SETTINGS), self.seed])

    def progress(self) -> StageProgress:
        return online_progress(self.folder, self.config.max_timesteps)

    def scores(self) -> OnlineScores:
        """The result of a finished run."""
        return read_scores(OnlineScores, self.output)

    def __call__(self) -> None:
        with held(self, self.folder) as key:
            if key is None:
                return
            use_threads(self.threads)
            device = pick_device(self.device)
            code = RowCode(self.task.observation_dim(), self.task.action_dim)
            agent = SAC.build(
                code.dim,
                code.action_dim,
                in_units_of(self.task, self.config.sac),
                seed=self.seed,
                device=device,
                dtype=autocast_dtype(device, self.config.precision),
            )
            finish(self, learn(self, agent, code, None, key=key, device=device), key)


def in_units_of(task: GymnasiumTask, config: SACConfig) -> SACConfig:
    """The configuration whose target entropy, of actions in [-1, 1], is that of the task's actions as they are.

    A density over actions that are c times as wide is less by log c per number: CleanRL's correction has this factor.
    """
    env = gymnasium.make(task.name)
    half = (np.asarray(env.action_space.high, np.float64) - env.action_space.low) / 2
    env.close()
    return dataclasses.replace(config, entropy_per_action=float(config.entropy_per_action - np.log(half).mean()))
