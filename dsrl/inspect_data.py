"""Say what a Robomimic file holds, whatever it lacks: demonstrations, lengths, keys with their shapes, masks.

Example:
    python -m dsrl.inspect_data --data_path datasets/lift/ph/low_dim_v141.hdf5
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import h5py
import numpy as np

from dsrl.demos import read_demonstrations
from dsrl.recorded_env import recorded_task
from envs.robomimic.task import RobomimicTask
from runtime.cli import parse_flags
from runtime.errors import DataError, UserError, one_line
from runtime.hdf5 import Item, attribute, find, open_hdf5, read
from runtime.main import run_main


def describe(path: Path) -> str:
    """What is in the file, for people, and at the end whether a policy can be cloned from it, or what it lacks.

    Raises `DataError` for what is no HDF5 file.
    """
    with open_hdf5(path) as file:
        lines = list(_lines(file))
    try:
        task = recorded_task(read_demonstrations(path), str(path))
        of = f"as of robosuite {task.arguments.series}" if isinstance(task, RobomimicTask) else "of gymnasium"
        usable = f"can be cloned: {task}, {of}"
    except UserError as error:
        usable = f"cannot be cloned: {one_line(error)}"
    return "\n".join([f"{path}:", *(f"  {line}" for line in (*lines, usable))])


def _lines(file: h5py.File) -> Iterator[str]:
    data = _own(file, "data")
    if not isinstance(data, h5py.Group):
        yield f"no group 'data'; found {', '.join(sorted(file)) or 'nothing'}"
        return
    demos = {name: _own(data, name) for name in sorted(data)}
    lengths = {name: length for name, demo in demos.items() if (length := _length(demo)) is not None}
    steps = np.array(list(lengths.values()), int)
    yield f"{len(demos)} demonstrations" + (
        f", {steps.sum()} steps, lengths {steps.min()} to {steps.max()}, mean {steps.mean():.1f}" if len(steps) else ""
    )
    for name in data.attrs:
        yield f"attribute {name}: {_attribute(data, name)}"
    if "env_args" not in data.attrs:
        yield "no attribute env_args"
    found: dict[tuple[str, str], int] = defaultdict(int)
    for demo in demos.values():
        for each in _arrays(demo):
            found[each] += 1
    for (key, item), count in sorted(found.items()):
        yield f"{key:28s} {item}" + (f", in {count} of {len(demos)}" if count < len(demos) else "")
    yield from _masks(file, set(demos))


def _own(group: h5py.Group, name: str) -> Item | str | None:
    """What is stored in this file under the name; why it is not opened, for what is elsewhere or cannot be."""
    try:
        return find(group, name)
    except DataError as error:
        return one_line(error).rpartition(f": {name} ")[2]


def _arrays(item: Item | str | None, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of each array of a demonstration; the first dimension, of time, is left out."""
    if isinstance(item, h5py.Group):
        for name in item:
            yield from _arrays(_own(item, name), f"{path}/{name}" if path else name)
    elif isinstance(item, h5py.Dataset):
        yield path or "(itself)", f"{item.dtype} {item.shape[1:]}" if item.shape else f"{item.dtype}, a single value"
    else:
        yield path or "(itself)", str(item)


def _attribute(group: h5py.Group, name: str) -> str:
    try:
        value = attribute(group, name)
    except DataError as error:
        return one_line(error)
    return " ".join(_text(value).split())


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _length(demo: Item | str | None) -> int | None:
    """Control steps of a demonstration, from its actions, else its states, else what it says of itself."""
    if not isinstance(demo, h5py.Group):
        return None
    for name in ("actions", "states"):
        array = _own(demo, name)
        if isinstance(array, h5py.Dataset) and array.shape:
            return len(array)
    said = _attribute(demo, "num_samples")
    return int(said) if said.isdecimal() else None


def _masks(file: h5py.File, demos: set[str]) -> Iterator[str]:
    masks = _own(file, "mask")
    counts = []
    for key in masks if isinstance(masks, h5py.Group) else ():
        mask = _own(masks, key)
        if not isinstance(mask, h5py.Dataset) or len(mask.shape or ()) != 1 or mask.dtype.kind not in "SO":
            counts.append(f"{key} (not a list)")
            continue
        absent = sum(_text(name) not in demos for name in read(mask))
        counts.append(f"{key} ({len(mask)}{f', of which {absent} are not there' if absent else ''})")
    yield f"masks: {', '.join(counts) or 'none'}"


def main(data_path: Path) -> None:
    """Print it.

    Args:
        data_path: HDF5 file
    """
    print(describe(data_path))


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
