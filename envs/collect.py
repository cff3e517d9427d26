"""Record episodes of the scripted experts in the published data layout, with several processes."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.experts import expert_for
from envs.vector import EnvGroup
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.task import Task
from runtime.atomic import artifact_info, commit_artifact
from runtime.config import to_dict
from runtime.errors import ConfigError, StateError
from runtime.logs import progress
from runtime.seeds import derive_seed, rng

log = logging.getLogger(__name__)

_CHUNK = 5  # episodes that one process steps side by side, and the grain of progress


@dataclass(frozen=True)
class CollectConfig:
    """How many episodes of which length, with how much Gaussian exploration noise on every action.

    `noise` are standard deviations of what is added to the expert's action before clipping; episode k takes the
    level k mod len(noise). Noisy episodes show how to recover and tell a Q-function what other actions are worth,
    quiet ones keep the action a clear function of the state. `episodes` is per task.
    """

    episodes: int = 20
    horizon: int = 500
    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.horizon < 1:
            raise ConfigError(f"episodes {self.episodes}, horizon {self.horizon}: expected positive numbers")
        if not self.noise or min(self.noise) < 0:
            raise ConfigError(f"noise {self.noise}: expected one or more numbers of at least 0")


def record(task: Task, config: CollectConfig, episodes: Sequence[int]) -> list[Episode]:
    """Run the numbered episodes side by side. An episode's start and noise depend on its number alone."""
    expert = expert_for(task)
    group = EnvGroup(task, len(episodes), {"horizon": config.horizon})
    noises = [rng("noise", config.seed, task.name, episode) for episode in episodes]
    level = np.array([config.noise[episode % len(config.noise)] for episode in episodes])[:, None]
    observations = group.reset([derive_seed("start", config.seed, task.name, episode) for episode in episodes])
    rows: list[list[tuple]] = [[] for _ in episodes]
    ended = np.zeros(len(episodes), dtype=bool)
    terminated = ended
    while not ended.all():
        noise = np.stack([generator.standard_normal(8) for generator in noises])
        actions = np.clip(expert(observations) + level * noise, -1.0, 1.0).astype(np.float32)
        following, rewards, terminated, truncated, successes = group.step(actions)
        for i in np.flatnonzero(~ended):
            rows[i].append((observations[i], actions[i], rewards[i], successes[i]))
        ended = terminated | truncated
        observations = following
    return [
        Episode(*(np.array(column, dtype=np.float32) for column in zip(*steps, strict=True)), terminated=bool(end))
        for steps, end in zip(rows, terminated, strict=True)
    ]


def _record_chunk(work: tuple[Task, CollectConfig, list[int]]) -> tuple[Task, int, list[Episode]]:
    task, config, episodes = work
    return task, episodes[0], record(task, config, episodes)


def collect(
    tasks: Sequence[Task], config: CollectConfig, data_path: Path, *, dataset_type: str = "expert", workers: int = 1
) -> dict[Task, float]:
    """Write each task's file; returns the success rate (of the last step) per task.

    A file that the same configuration made is kept. Raises `StateError` for one that was made otherwise.
    """
    info = to_dict(config)
    rates: dict[Task, float] = {}
    missing = []
    for task in tasks:
        path = task_file(data_path, dataset_type, task)
        if path.exists():
            known = artifact_info(path)
            if known is None or {key: known.get(key) for key in info} != info:
                raise StateError(f"{path}: made by another configuration ({known}), expected {info}; move it away")
            rates[task] = known["success_rate"]
        else:
            missing.append(task)
    chunks = [
        (task, config, list(range(start, min(start + _CHUNK, config.episodes))))
        for task in missing
        for start in range(0, config.episodes, _CHUNK)
    ]
    if not chunks:
        return rates
    parts: dict[Task, dict[int, list[Episode]]] = {task: {} for task in missing}
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(chunks))) as pool, progress(len(chunks) * _CHUNK, "expert episodes") as bar:
        for task, start, recorded in pool.imap_unordered(_record_chunk, chunks):
            parts[task][start] = recorded
            bar.update(_CHUNK, task=task.name)
            if len(parts[task]) * _CHUNK < config.episodes:
                continue
            episodes = [episode for first in sorted(parts[task]) for episode in parts[task][first]]
            rates[task] = float(np.mean([episode.successes[-1] for episode in episodes]))
            returns = float(np.mean([episode.rewards.sum() for episode in episodes]))
            commit_artifact(
                task_file(data_path, dataset_type, task),
                lambda temporary, episodes=episodes, task=task: write_expert(temporary, episodes, task),
                {**info, "success_rate": rates[task], "mean_return": returns},
            )
            log.info("%s: %d episodes, success %.2f, return %.0f", task, len(episodes), rates[task], returns)
            parts[task] = {}
    return {task: rates[task] for task in tasks}
