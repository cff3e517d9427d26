"""Expert data in the published HDF5 layout: where a task's file is, reading it, writing it.

Keys: `observations` (N, O) float32 with task ids, `actions` (N, A) float32, `rewards` and `successes` (N,) float32,
`terminals` and `timeouts` (N,) bool. Episodes stand one after the other; next observations are not stored.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import (
    EpisodeEnds,
    Transitions,
    check_actions,
    check_finite,
    check_flags,
    check_shape,
)
from runtime.atomic import atomic_path, verify
from runtime.errors import DataError
from runtime.hdf5 import find, open_hdf5, read
from runtime.paths import path_part

FLAGS = ("successes", "terminals", "timeouts")
KEYS = ("observations", "actions", "rewards", *FLAGS)
_COMPRESSION: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_ROWS_PER_CHUNK = 4096


def task_file(data_path: Path, dataset_type: str, task: Task) -> Path:
    """Where a task's file belongs: `<data_path>/<type>/<TASK>/data.hdf5`, for CompoSuite's tasks
    `<data_path>/<type>-<robot>-offline-comp-data/<TASK>/data.hdf5`.

    Raises `ConfigError` for a type that is no name of a folder.
    """
    path_part("dataset_type", dataset_type)
    return Path(data_path) / task.data_folder(dataset_type) / task.name / "data.hdf5"


def find_task_file(data_path: Path, dataset_type: str, task: Task) -> Path:
    """A task's file where it belongs, or in `<data_path>/<type>/<TASK>`. Raises `DataError` where it is in neither."""
    places = (task_file(data_path, dataset_type, task), Path(data_path) / dataset_type / task.name / "data.hdf5")
    for place in places:
        if place.exists():
            return place
    raise DataError(f"no {dataset_type} data of {task}: looked for {' and '.join(map(str, dict.fromkeys(places)))}")


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps: states (T, 77), the rest as in the file. Its last step ends or times out."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray
    terminated: bool


def write_expert(path: Path, episodes: Sequence[Episode], task: Task) -> None:
    """Write episodes (ids are added to their states) to an HDF5 file, whole or not at all."""
    if not episodes:
        raise DataError(f"{path}: no episode of two steps or more to write")
    lengths = np.array([len(episode.rewards) for episode in episodes])
    last = np.cumsum(lengths) - 1
    terminated = np.array([episode.terminated for episode in episodes])
    terminals = np.zeros(lengths.sum(), dtype=bool)
    terminals[last[terminated]] = True
    timeouts = np.zeros(lengths.sum(), dtype=bool)
    timeouts[last[~terminated]] = True
    states = np.concatenate([episode.states for episode in episodes])
    arrays = {
        "observations": task.layout.join_ids(states, task.one_hot).astype(np.float32),
        "actions": np.concatenate([episode.actions for episode in episodes]).astype(np.float32),
        "rewards": np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
        "successes": np.concatenate([episode.successes for episode in episodes]).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }
    # Built in memory: where the disk is full the HDF5 library ends the process instead of raising an error.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, **_COMPRESSION)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def join_expert(parts: Sequence[Path], path: Path, layout: FactoredLayout) -> None:
    """Write the rows of several files, one after the other, to one, whole or not at all; in memory one at a time.

    Raises `DataError` for a part that `read_arrays` refuses, `OSError` where the disk has no room for the parts twice.
    """
    room = sum(part.stat().st_size for part in parts)
    if shutil.disk_usage(path.parent).free < 1.2 * room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        for part in parts:
            for key, array in read_arrays(part, layout).items():
                if key not in file:
                    file.create_dataset(
                        key,
                        shape=(0, *array.shape[1:]),
                        maxshape=(None, *array.shape[1:]),
                        dtype=array.dtype,
                        chunks=(_ROWS_PER_CHUNK, *array.shape[1:]),
                        **_COMPRESSION,
                    )
                rows = len(file[key])
                file[key].resize(rows + len(array), axis=0)
                file[key][rows:] = array


@contextlib.contextmanager
def open_task_file(path: Path, layout: FactoredLayout) -> Iterator[dict[str, h5py.Dataset]]:
    """The data sets of a data file, all of `KEYS`, each with numbers of the expected shape.

    Raises `DataError` for a missing, truncated or differently shaped file and for what `runtime.hdf5` refuses, also
    while it is read.
    """
    with open_hdf5(path) as file:
        arrays: dict[str, Any] = {key: find(file, key) for key in KEYS}
        missing = [key for key, array in arrays.items() if array is None]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}, expected the keys {', '.join(KEYS)}")
        for key, array in arrays.items():
            if not isinstance(array, h5py.Dataset):
                raise DataError(f"{path}: {key} is a {type(array).__name__.lower()}, expected a data set")
            if array.dtype.kind not in "fbiu":
                raise DataError(f"{path}: {key} has dtype {array.dtype}, expected numbers")
        shape = arrays["observations"].shape
        if shape is None or len(shape) != 2:
            raise DataError(f"{path}: observations has shape {shape}, expected rows of numbers")
        if not shape[0]:
            raise DataError(f"{path}: observations has no rows")
        widths = {"observations": (layout.observation_dim,), "actions": (layout.action_dim,)}
        for key, array in arrays.items():
            check_shape(array, (shape[0], *widths.get(key, ())), f"{path}: {key}")
        yield arrays


def _read(arrays: Mapping[str, h5py.Dataset], key: str, path: Path) -> np.ndarray:
    array = read(arrays[key])
    check_finite(array, f"{path}: {key}")
    if key == "actions":
        check_actions(array, f"{path}: {key}")
    if key in FLAGS:
        check_flags(array, f"{path}: {key}")
    return array


def read_arrays(path: Path, layout: FactoredLayout) -> dict[str, np.ndarray]:
    """The arrays of a file, checked. Raises `DataError` for a missing, truncated or differently shaped file."""
    with open_task_file(path, layout) as arrays:
        return {key: _read(arrays, key, path) for key in KEYS}


def read_expert(path: Path, task: Task, *, episode_ends: EpisodeEnds = "drop") -> Transitions:
    """The transitions of a task's file.

    The file has no next observation for an episode's last step. `drop` leaves that step out where the episode was cut
    off; a terminal step stays, with the observation itself after it, which nothing bootstraps from. `self` takes the
    observation itself after every last step, `reference` takes the next row whatever it is, as the published code does
    (the first observation of the next episode). Raises `DataError` also where the file's task ids are not those of
    `task`, and where it was recorded here and is damaged.
    """
    verify(path)
    with open_task_file(path, task.layout) as arrays:
        terminals, timeouts = (_read(arrays, key, path).astype(bool) for key in ("terminals", "timeouts"))
        ends = terminals | timeouts
        if not ends.any():
            raise DataError(f"{path}: no row is a terminal or a timeout, expected one at the end of every episode")
        ends[-1] = True
        every = np.ones_like(ends)
        kept = {"drop": terminals | ~ends, "self": every, "reference": np.arange(len(ends)) < len(ends) - 1}[
            episode_ends
        ]
        if not kept.any():
            raise DataError(f"{path}: holds no transition")
        states, next_states = _read_states(arrays["observations"], path, task, kept)
        if episode_ends != "reference":
            last = ends[kept]
            next_states[last] = states[last]
        actions, rewards = (_read(arrays, key, path).astype(np.float32, copy=False) for key in ("actions", "rewards"))
    return Transitions(
        states=states,
        actions=actions[kept],
        rewards=rewards[kept],
        next_states=next_states,
        terminals=terminals[kept],
        timeouts=timeouts[kept],
        task=task,
    )


def _read_states(source: h5py.Dataset, path: Path, task: Task, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States of the kept rows and of the rows that follow them, (K, S) float32 each.

    Read in blocks that stay in the processor's cache while they are checked and copied to both places: the file's
    content is never in memory a second time. The last row of `next_states` is not written where the last row is kept.
    """
    count, layout = len(kept), task.layout
    place = np.concatenate([[0], np.cumsum(kept)])  # of each row's state
    states, next_states = (np.empty((place[-1], layout.state_dim), np.float32) for _ in range(2))
    # Whole chunks of the file, lest one be decompressed twice.
    chunk = source.chunks[0] if source.chunks else 1
    size = chunk * max(1, _ROWS_PER_CHUNK // chunk)
    buffer = np.empty((min(size, count), layout.observation_dim), source.dtype)
    chosen = np.empty_like(buffer)
    for start in range(0, count, size):
        stop = min(start + size, count)
        rows = buffer[: stop - start]
        source.read_direct(rows, np.s_[start:stop])
        check_finite(rows, f"{path}: observations", first_row=start)
        wrong = rows[:, layout.ids_slice] != task.one_hot
        if wrong.any():
            row = start + int(wrong.any(axis=1).argmax())
            raise DataError(f"{path}: row {row} has the ids of another task, expected those of {task}")
        for target, ahead in ((states, 0), (next_states, 1)):
            # The rows of this block that stand `ahead` of a kept one.
            first, last = max(start - ahead, 0), stop - ahead
            indices = np.flatnonzero(kept[first:last]) + (first + ahead - start)
            part = chosen[: len(indices)]
            # With room given and no check of the indices: five times as fast as indexing.
            np.take(rows, indices, axis=0, out=part, mode="clip")
            _without_ids(part, target[place[first] : place[last]], layout)
    return states, next_states


def _without_ids(observations: np.ndarray, states: np.ndarray, layout: FactoredLayout) -> None:
    ids = layout.ids_slice
    states[:, : ids.start] = observations[:, : ids.start]
    states[:, ids.start :] = observations[:, ids.stop :]
