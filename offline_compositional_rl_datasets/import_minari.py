"""Minari data sets, read by Minari's own loader after what it would follow or run has been ruled out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from offline_compositional_rl_datasets.importing import Trajectory
from runtime.atomic import read_json
from runtime.errors import DataError, one_line
from runtime.hdf5 import find, open_hdf5

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.dataset.episode_data import EpisodeData

_SUCCESS = ("success", "is_success")
_MOST_DEPTH = 20  # of groups in an episode


def open_minari(folder: Path) -> MinariDataset:
    """The data set in `folder` (which has `data/main_data.hdf5` and `data/metadata.json`).

    Raises `DataError` for what is no such folder, is not kept as HDF5, has links or claims in its file that
    `runtime.hdf5` refuses, or does not say its spaces: the loader would then import and make the environment that the
    metadata name.
    """
    import minari

    data = Path(folder) / "data"
    file = data / "main_data.hdf5"
    metadata = read_json(data / "metadata.json")
    if not isinstance(metadata, dict):
        raise DataError(f"{data / 'metadata.json'}: a {type(metadata).__name__}, expected a mapping")
    if metadata.get("data_format") != "hdf5":
        raise DataError(f"{data}: data_format {metadata.get('data_format')!r}, expected 'hdf5'")
    for key in ("observation_space", "action_space", "dataset_id"):
        if not isinstance(metadata.get(key), str):
            raise DataError(f"{data / 'metadata.json'}: {key} is {metadata.get(key)!r:.50}, expected text")
    with open_hdf5(file) as opened:
        _check_items(opened, f"{file}: ")
    try:
        return minari.MinariDataset(data)
    except Exception as error:  # a loader of damaged metadata may raise whatever it likes
        raise DataError(f"{data}: not a Minari data set ({type(error).__name__}: {one_line(error)[:200]})") from error


def _check_items(group: h5py.Group, label: str, depth: int = 0) -> None:
    """Raises `DataError` unless everything below `group` is in the file itself."""
    if depth > _MOST_DEPTH:
        raise DataError(f"{label}more than {_MOST_DEPTH} groups deep, expected the arrays of an episode")
    for name in group:
        item = find(group, name)
        if isinstance(item, h5py.Group):
            _check_items(item, label, depth + 1)


def minari_trajectories(dataset: MinariDataset, source: str, keys: Sequence[str] = ()) -> Iterator[Trajectory]:
    """The episodes of a data set. `keys` are those of a Dict observation that make the state, in their order.

    `infos["success"]` (or `is_success`) tells of the step that led to each observation. Raises `DataError` for spaces
    that are not numbers, and for a damaged episode.
    """
    _check_space(dataset.observation_space, source, keys)
    if type(dataset.action_space).__name__ != "Box":
        raise DataError(f"{source}: actions are {dataset.action_space}, expected a Box")
    count = int(dataset.total_episodes)
    if count < 1:
        raise DataError(f"{source}: no episodes")
    for i in range(count):
        label = f"{source}: episode {i}"
        try:
            (episode,) = dataset.iterate_episodes([i])
        except Exception as error:  # see above
            raise DataError(f"{label} is damaged ({type(error).__name__}: {one_line(error)[:200]})") from error
        yield _trajectory(episode, label, keys)


def _check_space(space: Any, source: str, keys: Sequence[str]) -> None:
    parts = getattr(space, "spaces", None)
    if isinstance(parts, dict):
        missing = [key for key in keys if key not in parts]
        if missing or not keys:
            wanted = f"no {missing[0]!r} among" if missing else "--keys, the names and their order, of"
            raise DataError(f"{source}: observations are a Dict: expected {wanted} {', '.join(parts)}")
        chosen = [parts[key] for key in keys]
    elif keys:
        raise DataError(f"{source}: observations are {space}, which has no keys; expected none of --keys")
    else:
        chosen = [space]
    for part in chosen:
        if type(part).__name__ != "Box" or part.dtype.kind not in "fiub" or len(part.shape) > 1:
            raise DataError(f"{source}: observations are {part}, expected a Box of rows of numbers")


def _trajectory(episode: EpisodeData, label: str, keys: Sequence[str]) -> Trajectory:
    steps = len(episode.rewards)
    ends = {"terminations": np.asarray(episode.terminations), "truncations": np.asarray(episode.truncations)}
    for name, flags in ends.items():
        if flags.shape != (steps,) or flags.dtype.kind not in "fbiu" or flags[:-1].any():
            raise DataError(f"{label}: {name}, expected {steps} flags of which the last alone may be set")
    if keys:
        parts = [np.asarray(episode.observations[key]) for key in keys]
        rows = {len(part) for part in parts if part.ndim}
        if len(rows) != 1 or any(part.ndim not in (1, 2) for part in parts):
            raise DataError(f"{label}: observations have shapes {[part.shape for part in parts]}, expected equal rows")
        observations = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    else:
        observations = np.asarray(episode.observations)
    successes = next((episode.infos[key] for key in _SUCCESS if key in (episode.infos or {})), None)
    if successes is not None:
        successes = np.asarray(successes)
        if successes.shape != (steps + 1,):
            raise DataError(f"{label}: success has shape {successes.shape}, expected ({steps + 1},)")
        successes = successes[1:]
    return Trajectory(
        source=label,
        observations=observations,
        actions=np.asarray(episode.actions),
        rewards=np.asarray(episode.rewards),
        successes=successes,
        terminated=bool(steps and ends["terminations"][-1]),
    )
