"""Demonstrations as files: the HDF5 layout of Robomimic's low-dim data sets, written and read.

A file of version 1.4.1 (`low_dim_v141.hdf5`), one of 1.5 (`low_dim_v15.hdf5`) and one recorded here have the same
groups: `data/demo_<i>` with `actions`, `states`, `rewards`, `dones`, `obs/<key>` and maybe `next_obs/<key>`; lists of
names under `mask/<key>`; the environment as JSON in the attribute `env_args` of `data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dsrl.tasks import Task, task_of
from envs.robomimic.task import ACTION_DIM, POLICY_KEYS
from offline_compositional_rl_datasets.import_robomimic import demonstration_names, text
from runtime.errors import DataError
from runtime.hdf5 import Item, attribute, find, open_hdf5, read

_ROUNDING = 1e-6
_REACH = 0.15  # m within which an absolute target of the hand is
DATA_FILES = ("low_dim_v141.hdf5", "low_dim_v15.hdf5", "low_dim_scripted.hdf5")


@dataclass(frozen=True)
class Demonstration:
    """One recorded episode of N control steps.

    states (N, 1 + nq + nv) and observations before the actions (N, 7), `following` the observations after them; rewards
    (N,) are those of the state after the action. `executed` (N, 7), where given, is what moved the robot: the action
    with exploration noise, while `actions` are the demonstrator's own. `ends` (N,), where given, is whether the task
    ended by the action, otherwise than in time.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    observations: Mapping[str, np.ndarray]
    following: Mapping[str, np.ndarray]
    model_xml: str
    executed: np.ndarray | None = None
    ends: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def dones(self) -> np.ndarray:
        """(N,) `ends`; else 1 where the task is solved after the action, and at the last step."""
        if self.ends is not None:
            return self.ends.astype(np.int64)
        dones = (self.rewards > 0).astype(np.int64)
        dones[-1] = 1
        return dones


@dataclass(frozen=True)
class DemonstrationSet:
    """What a policy learns from: observations (N, D) and actions (N, A) float32 of all chosen episodes in a row.

    `lengths` (E,) are the episodes'. `executed` (N, A) are the actions that moved the robot, which may be noisy ones.
    rewards (N,) are those after the action, None where the file has none; dones (N,) are the file's, 0 where it has
    none; `last_observations` (E, D) those after an episode's last action, not-a-number where they were not recorded.
    """

    keys: tuple[str, ...]
    observations: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    names: tuple[str, ...]
    env_args: str
    executed: np.ndarray
    rewards: np.ndarray | None
    dones: np.ndarray
    last_observations: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)


def write_demonstrations(
    path: Path,
    demonstrations: Sequence[Demonstration],
    task: Task,
    masks: Mapping[str, Sequence[int]],
    attributes: Mapping[str, Any],
) -> None:
    """Write a file that readers of the published ones can read; `masks` are numbers of demonstrations by key."""
    # The newest format keeps the models' long texts, which the oldest cannot, as attributes.
    with h5py.File(path, "w", libver="latest", locking=False) as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(len(demo) for demo in demonstrations)
        data.attrs["env_args"] = task.env_args
        for name, value in attributes.items():
            data.attrs[name] = value
        for i, demo in enumerate(demonstrations):
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = len(demo)
            group.attrs["model_file"] = demo.model_xml
            group["actions"] = np.asarray(demo.actions, np.float64)
            group["states"] = np.asarray(demo.states, np.float64)
            group["rewards"] = np.asarray(demo.rewards, np.float64)
            group["dones"] = demo.dones
            if demo.executed is not None:
                group["executed_actions"] = np.asarray(demo.executed, np.float64)
            for part, observations in (("obs", demo.observations), ("next_obs", demo.following)):
                for key, values in observations.items():
                    group[f"{part}/{key}"] = np.asarray(values, np.float64)
        for key, numbers in masks.items():
            file[f"mask/{key}"] = np.array([f"demo_{i}" for i in sorted(numbers)], dtype="S")


def read_demonstrations(
    path: Path,
    *,
    keys: Sequence[str] | None = None,
    filter_key: str = "",
    num_demos: int = 0,
) -> DemonstrationSet:
    """Read observations of `keys` and actions of the demonstrations in the mask `filter_key` (all where it is empty).

    By default the keys that policies of the file's task see. With `num_demos` only the first so many. Raises
    `DataError` naming file, group and what is expected, for actions beyond [-1, 1] and for absolute ones too.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; record one with `python -m dsrl.collect_demos --tasks lift`")
    with open_hdf5(path) as file:
        return _read(file, path, None if keys is None else tuple(keys), filter_key, num_demos)


def _read(
    file: h5py.File, path: Path, keys: tuple[str, ...] | None, filter_key: str, num_demos: int
) -> DemonstrationSet:
    data = find(file, "data")
    if not isinstance(data, h5py.Group):
        raise DataError(f"{path}: no group 'data'; expected a Robomimic data set")
    if "env_args" not in data.attrs:
        raise DataError(f"{path}: data has no attribute 'env_args'; expected the environment's arguments as JSON")
    attributes = {key: attribute(data, key) for key in data.attrs}
    env_args = text(attributes["env_args"], path)
    usual_keys, action_dim = _usual(env_args, path)
    keys = usual_keys if keys is None else keys
    names = demonstration_names(file, path, filter_key)
    if num_demos:
        if num_demos > len(names):
            raise DataError(f"{path}: {len(names)} demonstrations, but num_demos is {num_demos}")
        names = names[:num_demos]
    episodes: list[_Episode] = []
    for name in names:
        group = find(data, name)
        if group is None:
            raise DataError(f"{path}: mask/{filter_key} names {name}, which is not there")
        episodes.append(_episode(group, f"{path}: {name}", keys, action_dim))
        width, first = episodes[-1].observations.shape[1], episodes[0].observations.shape[1]
        if width != first:
            raise DataError(f"{path}: observations of {name} have {width} numbers, those of {names[0]} {first}")
    rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
    result = DemonstrationSet(
        keys=keys,
        observations=np.concatenate([episode.observations for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        lengths=np.array([len(episode.actions) for episode in episodes]),
        names=tuple(names),
        env_args=env_args,
        executed=np.concatenate([episode.executed for episode in episodes]),
        rewards=np.concatenate(rewards) if len(rewards) == len(episodes) else None,
        dones=np.concatenate([episode.dones for episode in episodes]),
        last_observations=np.stack([episode.last_observation for episode in episodes]),
        attributes={key: value for key, value in attributes.items() if key not in ("env_args", "total")},
    )
    finite = np.isfinite(result.observations).all(axis=1)
    if not finite.all():
        episode = int(np.searchsorted(np.cumsum(result.lengths), np.argmin(finite), side="right"))
        raise DataError(f"{path}: observations of {names[episode]} are not finite")
    return result


class _Episode(NamedTuple):
    """One demonstration's part of a `DemonstrationSet`."""

    observations: np.ndarray
    actions: np.ndarray
    executed: np.ndarray
    rewards: np.ndarray | None
    dones: np.ndarray
    last_observation: np.ndarray


def _usual(env_args: str, path: Path) -> tuple[tuple[str, ...], int]:
    """Keys that policies see, and numbers of an action, by the environment of the file.

    Of one that is not built here those of a single arm: what reads the file next says what it lacks.
    """
    try:
        task = task_of(env_args, str(path))
    except DataError:
        return POLICY_KEYS, ACTION_DIM
    return task.policy_keys, task.action_dim


def _episode(group: Item, source: str, keys: tuple[str, ...], action_dim: int) -> _Episode:
    if not isinstance(group, h5py.Group):
        raise DataError(f"{source} is an array, expected a group with actions and obs")
    parts = {}
    for part in ("actions", *(f"obs/{key}" for key in keys)):
        data = find(group, part)
        if not isinstance(data, h5py.Dataset):
            seen = find(group, "obs")
            if seen is None and part != "actions":
                raise DataError(
                    f"{source} has no observations, expected obs/<key>; "
                    "robomimic's dataset_states_to_obs.py extracts them from the states"
                )
            found = sorted(seen if isinstance(seen, h5py.Group) else group)
            raise DataError(f"{source} has no {part!r}; found {', '.join(found)}")
        if data.dtype.kind not in "fiu" or not data.shape:
            raise DataError(f"{source}/{part} holds {data.dtype} of shape {data.shape}, expected numbers")
        parts[part] = read(data)
    action = parts["actions"]
    if action.ndim != 2 or action.shape[1] != action_dim or not len(action):
        raise DataError(f"{source}/actions has the shape {action.shape}, expected (N, {action_dim})")
    for part, array in parts.items():
        if len(array) != len(action):
            raise DataError(f"{source}/{part} has {len(array)} rows, actions have {len(action)}")
    _check_actions(action, parts.get("obs/robot0_eef_pos"), source)
    columns = [parts[f"obs/{key}"].reshape(len(action), -1) for key in keys]
    with np.errstate(over="ignore"):  # too large is not finite, which is looked for in the whole
        observations = np.concatenate(columns, axis=1, dtype=np.float32)
    executed = _optional(group, "executed_actions", action.shape)
    dones = _optional(group, "dones", (len(action),))
    every = (_optional(group, f"next_obs/{key}", parts[f"obs/{key}"].shape) for key in keys)
    after = [part for part in every if part is not None]
    return _Episode(
        observations=observations,
        actions=action.astype(np.float32),
        executed=(action if executed is None else executed).astype(np.float32),
        rewards=_optional(group, "rewards", (len(action),)),
        dones=np.zeros(len(action)) if dones is None else dones,
        last_observation=np.concatenate([part[-1].reshape(-1) for part in after], dtype=np.float32)
        if len(after) == len(keys)
        else np.full(observations.shape[1], np.nan, np.float32),
    )


def _optional(group: h5py.Group, part: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Numbers of that shape; None where the file has none."""
    data = find(group, part)
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiu" or data.shape != shape:
        return None
    return read(data)


def _check_actions(action: np.ndarray, hand: np.ndarray | None, source: str) -> None:
    """Raises `DataError` for actions (N, 7) that are not changes of the hand's pose; `hand` (N, 3) is where it was."""
    meant = "expected changes of the hand's pose in [-1, 1]; absolute poses are not read"
    beyond = ~(np.abs(action) <= 1 + _ROUNDING)  # not-a-number too
    if beyond.any():
        row, number = (int(i) for i in np.argwhere(beyond)[0])
        if not np.isfinite(action[row, number]):
            raise DataError(f"{source}/actions are not finite (row {row}, number {number})")
        raise DataError(f"{source}/actions has {action[row, number]:g} (row {row}, number {number}), {meant}")
    if hand is not None and hand.shape == (len(action), 3):
        near = np.abs(action[:, :3] - hand).max(axis=1) < _REACH
        if near.mean() > 0.9:
            raise DataError(f"{source}/actions are within {_REACH} of the hand's position, {meant}")
