"""The kinds of data sets, by the policy that acts: an expert, or the expert made worse in a documented way.

- `expert`: the expert, disturbed now and then so that the data shows how to come back (`CollectConfig`);
- `medium`: the expert acting at random for a fixed share of its time, chosen so that about half of its runs succeed;
- `random`: uniformly random actions, each held for 10 steps;
- `medium-replay-subsampled`: runs from all random to medium, the share falling evenly, as in the replay buffer of a
  policy that learns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError

KINDS = ("expert", "medium", "random", "medium-replay-subsampled")

_TRIALS = 10
_HALVINGS = 6


def config_of_kind(
    kind: str,
    task: Task,
    config: CollectConfig,
    expert: Callable[[np.ndarray], np.ndarray],
    known: Callable[[CollectConfig], tuple[float, float] | None] = lambda _: None,
) -> CollectConfig:
    """How to record a kind of data of a task. Raises `ConfigError` for an unknown kind.

    `known` tells the shares of random actions in what was already recorded in this way, if anything was. Only expert
    data is disturbed by shoves and slips, and only its runs end soon after they succeed.
    """
    if kind not in KINDS:
        raise ConfigError(f"--dataset_type {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "expert":
        return config
    plain = replace(config, shove_every=0, slip=0.0, linger=config.horizon)
    if kind == "random":
        return replace(plain, random_share=(1.0, 1.0))
    shares = known(plain)
    if shares is not None:
        return replace(plain, random_share=shares)
    share = medium_share(task, plain, expert)
    return replace(plain, random_share=(share, share) if kind == "medium" else (1.0, share))


def medium_share(task: Task, config: CollectConfig, expert: Callable[[np.ndarray], np.ndarray]) -> float:
    """The share of random actions at which about half of the runs succeed, by halving on 10 runs each."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        runs = record(task, replace(config, random_share=(share, share)), range(_TRIALS), expert)
        solved = sum(run.success for run in runs)
        if 2 * solved == _TRIALS:
            return share
        low, high = (share, high) if 2 * solved > _TRIALS else (low, share)
    return low
