"""LeRobot data sets of format v3.0, low-dimensional columns only, read without depending on LeRobot.

A frame is a control step. `next.reward`, `next.success`, `next.done` and `next.truncated` are what its action led to;
sets without rewards are read where the caller says that they are demonstrations, each solved by its last step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offline_compositional_rl_datasets.importing import Trajectory, succeeded
from offline_compositional_rl_datasets.lerobot import VERSION
from runtime.atomic import read_json
from runtime.errors import DataError, one_line

_STATE, _ACTION = "observation.state", "action"
_OPTIONAL = ("next.reward", "next.success", "next.done", "next.truncated")
_EXPANSION = 2_000  # how many times larger than a file its numbers may be
_ROOM = 64 * 2**20  # bytes that any file may stand for


@dataclass(frozen=True)
class LeRobotSet:
    """What the metadata say: frames per second (None: they do not say), columns that frames have, and of each episode
    its task, its length and its data file."""

    folder: Path
    fps: float | None
    columns: tuple[str, ...]
    episodes: tuple[tuple[int, str, int, Path], ...]

    @property
    def tasks(self) -> list[str]:
        """The tasks as the data set names them, in the order of their first episodes."""
        return list(dict.fromkeys(task for _, task, _, _ in self.episodes))


def open_lerobot(folder: Path) -> LeRobotSet:
    """Raises `DataError` for what is not a data set of this version, or has an episode of several tasks."""
    info_file = Path(folder) / "meta" / "info.json"
    info = read_json(info_file)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version != VERSION:
        raise DataError(f"{info_file}: codebase_version {version!r}, expected {VERSION!r}")
    features = info.get("features")
    if not isinstance(features, dict):
        raise DataError(f"{info_file}: features is a {type(features).__name__}, expected a mapping")
    episodes = []
    for file in _parquet_files(Path(folder) / "meta" / "episodes"):
        names = ("episode_index", "tasks", "length", "data/chunk_index", "data/file_index")
        rows = _read(file, names)
        for index, tasks, length, chunk, number in zip(*(rows[name] for name in names), strict=True):
            label = f"{file}: episode {index}"
            if not all(isinstance(value, (int, np.integer)) for value in (index, length, chunk, number)):
                raise DataError(f"{label}: expected whole numbers in {', '.join(names[:1] + names[2:])}")
            if tasks is None or len(tasks) != 1 or not isinstance(tasks[0], str):
                raise DataError(f"{label} has the tasks {tasks}, expected one")
            # By number, whatever template the metadata have: what is read is in this folder.
            data = Path(folder) / "data" / f"chunk-{chunk:03d}" / f"file-{number:03d}.parquet"
            episodes.append((int(index), tasks[0], int(length), data))
    if not episodes:
        raise DataError(f"{folder}: no episodes")
    return LeRobotSet(
        Path(folder), _rate(info.get("fps"), info_file), tuple(map(str, features)), tuple(sorted(episodes))
    )


def _rate(value: Any, info_file: Path) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
        raise DataError(f"{info_file}: fps {value!r:.50}, expected a number above 0")
    return None if value is None else float(value)


def lerobot_trajectories(
    dataset: LeRobotSet, task: str | None = None, keys: Sequence[str] = (), *, demonstrations: bool = False
) -> Iterator[Trajectory]:
    """The episodes of a task (None: of all), file by file. `keys` are the columns that make the state, in their order.

    Raises `DataError` for a missing column, and for a file that is damaged or holds other frames than the metadata say.
    """
    state = tuple(keys) or (_STATE,)
    missing = [name for name in (*state, _ACTION) if name not in dataset.columns]
    if missing:
        raise DataError(f"{dataset.folder}: no column {missing[0]!r}; found {', '.join(dataset.columns)}")
    optional = [name for name in _OPTIONAL if name in dataset.columns]
    if not {"next.reward", "next.success"} & set(optional) and not demonstrations:
        raise DataError(
            f"{dataset.folder}: neither next.reward nor next.success; expected one, or --demonstrations for episodes "
            "that their last step solves"
        )
    files: dict[Path, list[tuple[int, int]]] = {}
    for index, name, length, file in dataset.episodes:
        if task in (None, name):
            files.setdefault(file, []).append((index, length))
    for file, episodes in files.items():
        frames = _read(file, ("episode_index", *state, _ACTION, *optional))
        owners = frames["episode_index"]
        for index, length in episodes:
            label = f"{file}: episode {index}"
            rows = np.flatnonzero(owners == index)
            if len(rows) != length or not length or rows[-1] - rows[0] != length - 1:
                raise DataError(f"{label} has {len(rows)} frames in a row, expected {length}")
            part = slice(rows[0], rows[-1] + 1)
            yield _trajectory({name: values[part] for name, values in frames.items()}, label, state)


def _trajectory(frames: Mapping[str, np.ndarray], label: str, state: Sequence[str]) -> Trajectory:
    steps = len(frames["episode_index"])
    told = {name: frames[name].reshape(steps, -1)[:, 0] for name in _OPTIONAL if name in frames}
    for name in ("next.done", "next.truncated"):
        flags = told.get(name, np.zeros(steps, bool))
        if flags.dtype.kind not in "fbiu" or flags[:-1].any():
            raise DataError(f"{label}: {name}, expected flags of which the last alone may be set")
    solved = np.arange(steps) == steps - 1
    successes = told.get("next.success", None if "next.reward" in told else solved)
    rewards = told.get("next.reward", successes)
    assert rewards is not None  # successes are there where rewards are not
    if "next.truncated" in told:
        terminated = not told["next.truncated"][-1] and bool(told.get("next.done", solved)[-1])
    else:  # it does not say how episodes ended: by solving the task, or else they were cut off
        terminated = bool(succeeded(rewards, successes)[-1])
    return Trajectory(
        source=label,
        observations=np.concatenate([frames[name].reshape(steps, -1) for name in state], axis=1),
        actions=frames[_ACTION].reshape(steps, -1),
        rewards=rewards,
        successes=successes,
        terminated=terminated,
    )


def _parquet_files(folder: Path) -> list[Path]:
    """`chunk-*/file-*.parquet` in order. Raises `DataError` where there are none."""
    found = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not found:
        raise DataError(f"{folder}: no chunk-*/file-*.parquet")
    return found


def _read(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a Parquet file: (N,), or (N, D) for lists of one length; lists of text as arrays of objects.

    Raises `DataError` where the file is missing, damaged, lacks a column, claims more than it can hold or has gaps.
    """
    import pyarrow
    from pyarrow import parquet

    if not file.is_file():
        raise DataError(f"{file}: no such data file")
    try:
        with contextlib.closing(parquet.ParquetFile(file)) as opened:
            found = opened.schema_arrow.names
            missing = [name for name in names if name not in found]
            if missing:
                raise DataError(f"{file}: no column {missing[0]!r}; found {', '.join(found)[:500]}")
            claimed = 8 * _values(opened.metadata)
            if claimed > max(_EXPANSION * file.stat().st_size, _ROOM):
                raise DataError(f"{file} claims {claimed:,} bytes, of which the file holds {file.stat().st_size:,}")
            table = opened.read(columns=list(names))
            return {name: _array(table.column(name), f"{file}: {name}") for name in names}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({one_line(error)[:200]})") from error


def _values(metadata: Any) -> int:
    """How many values a Parquet file says that it has."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return sum(group.column(i).num_values for group in groups for i in range(group.num_columns))


def _array(column: Any, label: str) -> np.ndarray:
    import pyarrow

    values = column.combine_chunks()
    if values.null_count:
        raise DataError(f"{label} has {values.null_count} gaps, expected none")
    kind = values.type
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        flat = values.flatten()
        if not (pyarrow.types.is_floating(flat.type) or pyarrow.types.is_integer(flat.type)):
            return np.array([row.as_py() for row in values], dtype=object)
        if flat.null_count:
            raise DataError(f"{label} has gaps, expected numbers")
        if not len(values) or len(flat) % len(values):
            raise DataError(f"{label} has {len(flat)} numbers in {len(values)} rows, expected rows of one length")
        if not pyarrow.types.is_fixed_size_list(kind) and len(set(values.value_lengths().to_pylist())) > 1:
            raise DataError(f"{label} has rows of different lengths")
        rows: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)
        return rows
    if not (pyarrow.types.is_primitive(kind) or pyarrow.types.is_boolean(kind)) or pyarrow.types.is_temporal(kind):
        raise DataError(f"{label} holds {kind}, expected numbers")
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
    return numbers
