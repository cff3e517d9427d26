"""Robomimic's low-dimensional HDF5 files: `data/demo_<i>` with `actions`, `rewards`, `obs/<key>`, maybe `next_obs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offline_compositional_rl_datasets.importing import Trajectory, succeeded
from runtime.errors import DataError
from runtime.hdf5 import attribute, find, open_hdf5, read


def robomimic_trajectories(path: Path, keys: Sequence[str], filter_key: str = "") -> Iterator[Trajectory]:
    """The demonstrations of the mask `filter_key` (all where it is empty).

    The state is `obs/<key>` in the order of `keys`. A step of reward 1 succeeded; a demonstration whose last step did
    has terminated, others were cut off. Raises `DataError` naming file, demonstration and what is expected.
    """
    if not keys:
        raise DataError(f"{path}: expected --keys, the names under obs that make the state, in their order")
    with open_hdf5(Path(path)) as file:
        data = find(file, "data")
        if not isinstance(data, h5py.Group):
            raise DataError(f"{path}: no group 'data'; expected a Robomimic data set")
        for name in demonstration_names(file, path, filter_key):
            group = find(data, name)
            if not isinstance(group, h5py.Group):
                raise DataError(f"{path}: no group data/{name}")
            yield _trajectory(group, f"{path}: {name}", keys)


def steps_per_second(path: Path) -> float | None:
    """Control steps per second by the file's `env_args`; None where they do not say it."""
    with open_hdf5(Path(path)) as file:
        data = find(file, "data")
        told: Any = attribute(data, "env_args") if isinstance(data, h5py.Group) else None
    try:
        rate = json.loads(told)["env_kwargs"]["control_freq"]
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    return rate if isinstance(rate, (int, float)) and rate > 0 else None


def _trajectory(group: h5py.Group, label: str, keys: Sequence[str]) -> Trajectory:
    actions, rewards = (_numbers(group, name, label) for name in ("actions", "rewards"))
    steps = len(actions)
    observations = _observations(group, "obs", label, keys, steps)
    if find(group, "next_obs") is not None and steps:
        following = _observations(group, "next_obs", label, keys, steps)
        observations = np.concatenate([observations, following[-1:]])
    solved = succeeded(rewards, None)
    return Trajectory(label, observations, actions, rewards, None, bool(solved[-1:].any()))


def _observations(group: h5py.Group, part: str, label: str, keys: Sequence[str], steps: int) -> np.ndarray:
    """(T, S): the keys side by side."""
    columns = []
    for key in keys:
        values = _numbers(group, f"{part}/{key}", label)
        if len(values) != steps:
            raise DataError(f"{label}/{part}/{key} has {len(values)} rows, actions have {steps}")
        columns.append(values.reshape(steps, -1) if steps else values.reshape(0, 1))
    return np.concatenate(columns, axis=1)


def _numbers(group: h5py.Group, name: str, label: str) -> np.ndarray:
    data = find(group, name)
    if not isinstance(data, h5py.Dataset):
        above = find(group, name.split("/")[0]) if "/" in name else group
        found = ", ".join(sorted(above)) if isinstance(above, h5py.Group) else ""
        raise DataError(f"{label} has no {name!r}; found {found or 'nothing'}")
    if data.dtype.kind not in "fbiu" or not data.shape:
        raise DataError(f"{label}/{name} holds {data.dtype} of shape {data.shape}, expected numbers")
    return read(data)


def demonstration_names(file: h5py.File, path: Path, filter_key: str) -> list[str]:
    """Names of the demonstrations of a mask (all where `filter_key` is empty) in the order of their numbers.

    The numbering may have holes. Raises `DataError` for a mask that is not there or is not a list of names, and where
    there are no demonstrations.
    """
    if filter_key:
        names = _mask(file, path, filter_key)
    else:
        data = find(file, "data")
        names = [name for name in data if name.startswith("demo_")] if isinstance(data, h5py.Group) else []
    if not names:
        raise DataError(f"{path}: no demonstrations")
    return sorted(names, key=_number)


def _mask(file: h5py.File, path: Path, filter_key: str) -> list[str]:
    masks = find(file, "mask")
    known = sorted(masks) if isinstance(masks, h5py.Group) else []
    if filter_key not in known:
        raise DataError(f"{path}: no mask {filter_key!r}; found {', '.join(known) or 'none at all'}")
    chosen = find(file, f"mask/{filter_key}")
    if not isinstance(chosen, h5py.Dataset) or chosen.dtype.kind not in "SO" or len(chosen.shape or ()) != 1:
        raise DataError(f"{path}: mask/{filter_key} is not a list of names of demonstrations")
    return [text(name, path) for name in read(chosen)]


def _number(name: str) -> int:
    """Of `demo_<i>`; -1 for another name."""
    number = name.rsplit("_", 1)[-1]
    return int(number) if number.isdecimal() else -1


def text(value: object, path: Path) -> str:
    """A string of an HDF5 file. Raises `DataError` where it is not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {value!r:.50} is not text in UTF-8") from error
