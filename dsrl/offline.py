"""Offline data for a steering run: demonstrations as decisions, and the replay buffer of another run as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsrl.config import DSRLConfig
from dsrl.decisions import OfflineDecisions
from dsrl.demos import DemonstrationSet, read_demonstrations
from dsrl.noise_sac import BUFFER
from dsrl.recorded_env import recorded_task
from dsrl.steerable import InvertiblePolicy, SteerablePolicy
from envs.gymnasium_task import GymnasiumTask
from runtime.atomic import atomic_path, parse_json
from runtime.errors import ConfigError, DataError
from runtime.npz import NUMBERS, TEXT, read_npz

_Row = tuple[int, int, float, bool]
"""First step and the step of the next observation, reward, whether the task ended there."""


def read_offline(path: Path, policy: SteerablePolicy, config: DSRLConfig) -> OfflineDecisions:
    """Decisions from demonstrations (.hdf5, for `na` alone) or from a kept replay buffer (.npz) of the same policy.

    Raises `ConfigError` for demonstrations where the replay holds noise, `DataError` for data of something else.
    """
    if path.suffix == ".npz":
        return _read_buffer(path, policy, config)
    if config.algorithm != "na":
        raise ConfigError(
            f"offline_data {path}: demonstrations hold actions and no noise, expected --algorithm na, or the .npz of "
            "a replay buffer"
        )
    if not isinstance(policy, InvertiblePolicy):
        raise ConfigError(f"offline_data {path}: {policy.source} has no to_chunk, which demonstrations need")
    data = read_demonstrations(path, keys=policy.keys)
    task = recorded_task(data, str(path))
    if task.name != policy.task.name:
        raise DataError(f"{path}: demonstrations of the task {task.name!r}, expected those of {policy.task.name!r}")
    if data.rewards is None:
        raise DataError(f"{path}: demonstrations without rewards, expected data/demo_<i>/rewards for offline_data")
    return demonstrated(data, policy, config, terminals=isinstance(task, GymnasiumTask))


def demonstrated(
    data: DemonstrationSet, policy: InvertiblePolicy, config: DSRLConfig, *, terminals: bool
) -> OfflineDecisions:
    """Every run of decisions that an episode holds: those beginning at its first step, at its second, and so on.

    What was executed counts, not what a demonstrator would have done. With `terminals` the file's `dones` end the task;
    else a success does, where it ends an episode of the training.
    """
    assert data.rewards is not None, "of demonstrations with rewards"
    columns: dict[str, list[Any]] = {name: [] for name in ("seen", "after", "actions", "rewards", "dones", "timeouts")}
    start = 0
    for length, last in zip(data.lengths, data.last_observations, strict=True):
        part = slice(start, start + length)
        seen = np.concatenate([data.observations[part], last[None]])
        actions, rewards = data.executed[part], data.rewards[part]
        ends = data.dones[part] > 0 if terminals else (rewards > 0) & config.until_success
        known = length if np.isfinite(last).all() else length - 1
        for first in range(policy.chunk):
            rows = list(_chain(first, policy.chunk, rewards, ends, known, config.reward_offset))
            for number, (step, after, reward, ended) in enumerate(rows):
                chunk = actions[np.minimum(np.arange(step, step + policy.chunk), length - 1)]
                columns["seen"].append(seen[step])
                columns["after"].append(seen[min(after, known)] if ended else seen[after])
                columns["actions"].append(chunk.ravel())
                columns["rewards"].append(reward)
                closes = ended or number == len(rows) - 1
                columns["dones"].append(closes)
                columns["timeouts"].append(closes and not ended)
        start += length
    if not columns["seen"]:
        raise DataError(f"demonstrations of {data.lengths.max()} steps hold no chunk of {policy.chunk} actions")
    states, next_states = (policy.features(np.stack(columns[name])).cpu().numpy() for name in ("seen", "after"))
    chunks = policy.to_chunk(np.stack(columns["actions"])).cpu().numpy()
    outcomes = (np.array(columns[name]) for name in ("rewards", "dones", "timeouts"))
    return OfflineDecisions(states, next_states, chunks, *outcomes)


def _chain(first: int, chunk: int, rewards: np.ndarray, ends: np.ndarray, known: int, offset: float) -> Iterator[_Row]:
    """Decisions of `chunk` steps one after the other from step `first` on; step `known` is the last one observed."""
    for step in range(first, len(rewards), chunk):
        end = np.flatnonzero(ends[step : step + chunk])
        count = int(end[0]) + 1 if len(end) else chunk
        if not len(end) and step + chunk > known:
            return
        reward = float(rewards[step : step + count].sum()) - offset * count
        yield step, step + count, reward, bool(len(end))
        if len(end):
            return


def write_buffer(path: Path, buffer: Any, policy: SteerablePolicy, config: DSRLConfig) -> None:
    """What a replay buffer of stable-baselines3 holds, one environment's decisions after another's."""
    order = np.arange(buffer.size())
    if buffer.full:
        order = (order + buffer.pos) % buffer.buffer_size
    arrays: dict[str, Any] = {
        name: np.concatenate(list(getattr(buffer, name)[order].swapaxes(0, 1))) for name in BUFFER
    }
    ends = np.arange(1, buffer.n_envs + 1) * len(order) - 1
    arrays["timeouts"][ends] = np.maximum(arrays["timeouts"][ends], 1 - arrays["dones"][ends])
    arrays["dones"][ends] = 1
    about = json.dumps(_about(policy, config))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, about=np.array(about), **arrays)


def _about(policy: SteerablePolicy, config: DSRLConfig) -> dict[str, Any]:
    """What a buffer's decisions depend on."""
    names = ("algorithm", "reward_offset", *(("action_magnitude",) if config.algorithm == "sac" else ()))
    return {"policy": policy.identity, **{name: getattr(config, name) for name in names}}


def _read_buffer(path: Path, policy: SteerablePolicy, config: DSRLConfig) -> OfflineDecisions:
    arrays = read_npz(path, {"about": TEXT, **dict.fromkeys(BUFFER, NUMBERS)})
    try:
        about = parse_json(str(arrays.pop("about")))
    except ValueError as error:
        raise DataError(f"{path}: about is not JSON, expected the replay buffer of a steering run") from error
    expected = _about(policy, config)
    differing = [name for name in expected if not isinstance(about, dict) or about.get(name) != expected[name]]
    if differing:
        raise DataError(
            f"{path}: a replay buffer of another {', '.join(differing)}, expected {expected[differing[0]]!r}"
        )
    rows = len(arrays["rewards"])
    actions = policy.noise_dim if config.algorithm == "sac" else policy.chunk_dim
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("observations", "next_observations"), (rows, policy.feature_dim)),
        "actions": (rows, actions),
        **dict.fromkeys(("rewards", "dones", "timeouts"), (rows,)),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not rows:
            raise DataError(f"{path}: {name} has the shape {arrays[name].shape}, expected {shape} of at least one row")
        if not np.isfinite(arrays[name]).all():
            raise DataError(f"{path}: {name} holds numbers that are not finite")
    return OfflineDecisions(**{name: arrays[name] for name in BUFFER})
