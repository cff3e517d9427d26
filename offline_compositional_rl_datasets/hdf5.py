"""Expert data in the published HDF5 layout: where a task's file is, reading it, writing it.

Keys: `observations` (N, 93) float32 with task ids, `actions` (N, 8) float32, `rewards` and `successes` (N,) float32,
`terminals` and `timeouts` (N,) bool. Episodes stand one after the other; next observations are not stored.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions, check_array
from runtime.atomic import atomic_path
from runtime.errors import DataError

KEYS = ("observations", "actions", "rewards", "successes", "terminals", "timeouts")
_COMPRESSION: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_ROWS_PER_CHUNK = 4096

EpisodeEnds = Literal["drop", "self", "reference"]


def task_file(data_path: Path, dataset_type: str, task: Task) -> Path:
    """Where a task's file belongs: `<type>-<robot>-offline-comp-data/<TASK>/data.hdf5`."""
    return Path(data_path) / f"{dataset_type}-{task.robot.lower()}-offline-comp-data" / task.name / "data.hdf5"


def find_task_file(data_path: Path, dataset_type: str, task: Task) -> Path:
    """A task's file in either published folder layout. Raises `DataError` naming both places where it is in neither."""
    places = (task_file(data_path, dataset_type, task), Path(data_path) / dataset_type / task.name / "data.hdf5")
    for place in places:
        if place.exists():
            return place
    raise DataError(f"no {dataset_type} data of {task}: looked for {places[0]} and {places[1]}")


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps (shapes as in the file). Its last step is a terminal or a timeout."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray
    terminated: bool


def write_expert(path: Path, episodes: Sequence[Episode], task: Task, layout: FactoredLayout = COMPOSUITE) -> None:
    """Write episodes (observations (T, 77), ids are added) to an HDF5 file, whole or not at all."""
    if not episodes:
        raise DataError(f"{path}: no episode of two steps or more to write")
    lengths = np.array([len(episode.rewards) for episode in episodes])
    last = np.cumsum(lengths) - 1
    terminated = np.array([episode.terminated for episode in episodes])
    terminals = np.zeros(lengths.sum(), dtype=bool)
    terminals[last[terminated]] = True
    timeouts = np.zeros(lengths.sum(), dtype=bool)
    timeouts[last[~terminated]] = True
    states = np.concatenate([episode.observations for episode in episodes])
    arrays = {
        "observations": layout.join_ids(states, task.one_hot).astype(np.float32),
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


def join_expert(parts: Sequence[Path], path: Path, layout: FactoredLayout = COMPOSUITE) -> None:
    """Write the rows of several files, one after the other, to one, whole or not at all; in memory one at a time.

    Raises `DataError` for a part that `read_arrays` refuses, `OSError` where the disk has no room for the parts twice.
    """
    room = sum(part.stat().st_size for part in parts)
    if shutil.disk_usage(path.parent).free < 1.2 * room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
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


def read_arrays(path: Path, layout: FactoredLayout = COMPOSUITE) -> dict[str, np.ndarray]:
    """The arrays of a file, checked. Raises `DataError` for a missing, truncated or differently shaped file."""
    keys = KEYS
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise DataError(f"{path}: lacks {', '.join(missing)}, expected the keys {', '.join(keys)}")
            groups = [key for key in keys if not isinstance(file[key], h5py.Dataset)]
            if groups:
                raise DataError(f"{path}: {groups[0]} is a group, expected a data set")
            arrays = {key: file[key][()] for key in keys}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such data file") from error
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable HDF5 file, perhaps truncated ({error})") from error
    rows = len(arrays["observations"])
    if rows == 0:
        raise DataError(f"{path}: observations has no rows")
    shapes = {"observations": (rows, layout.observation_dim), "actions": (rows, layout.action_dim)}
    for key in keys:
        check_array(arrays[key], shapes.get(key, (rows,)), f"{path}: {key}")
    return arrays


def read_expert(
    path: Path, task: Task, layout: FactoredLayout = COMPOSUITE, *, episode_ends: EpisodeEnds = "drop"
) -> Transitions:
    """The transitions of a task's file.

    The file has no next observation for an episode's last step. `drop` leaves that step out, `self` takes the
    observation itself, `reference` takes the next row whatever it is, as the published code does (the first
    observation of the next episode). Raises `DataError` also where the file's task ids are not those of `task`.
    """
    arrays = read_arrays(path, layout)
    observations = arrays["observations"]
    wrong = np.flatnonzero((observations[:, layout.ids_slice] != task.one_hot).any(axis=1))
    if len(wrong):
        raise DataError(f"{path}: row {wrong[0]} has the ids of another task, expected those of {task}")
    terminals, timeouts = arrays["terminals"].astype(bool), arrays["timeouts"].astype(bool)
    count = len(observations)
    ends = terminals | timeouts
    ends[-1] = True
    if episode_ends == "drop":
        stops = np.flatnonzero(ends)
        starts = np.concatenate([[0], stops[:-1] + 1])
    else:
        starts, stops = np.array([0]), np.array([count - 1])
    spans = list(zip(starts.tolist(), stops.tolist(), strict=True))
    following = [(start + 1, stop + 1) for start, stop in spans]
    if episode_ends == "self":
        spans, following = [(0, count)], [(1, count), (count - 1, count)]
    if not any(stop > start for start, stop in spans):
        raise DataError(f"{path}: holds no transition")
    states, next_states = (_states(observations, each, layout) for each in (spans, following))
    if episode_ends == "self":
        next_states[ends] = states[ends]
    del observations, arrays["observations"]
    return Transitions(
        observations=states,
        actions=_cut(arrays["actions"], spans),
        rewards=_cut(arrays["rewards"], spans),
        next_observations=next_states,
        terminals=_cut(terminals, spans),
        timeouts=_cut(timeouts, spans),
        task=task,
    )


def _states(observations: np.ndarray, spans: Sequence[tuple[int, int]], layout: FactoredLayout) -> np.ndarray:
    """The rows of all spans without their task ids: one pass over the memory, where an index would make three."""
    ids = layout.ids_slice
    states = np.empty((sum(stop - start for start, stop in spans), layout.state_dim), np.float32)
    filled = 0
    for start, stop in spans:
        part = states[filled : filled + stop - start]
        part[:, : ids.start] = observations[start:stop, : ids.start]
        part[:, ids.start :] = observations[start:stop, ids.stop :]
        filled += stop - start
    return states


def _cut(array: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """The rows of all spans; numbers as float32."""
    array = array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
    return np.concatenate([array[start:stop] for start, stop in spans])
