"""Data sets in forms that others read: Minari where there are episodes, flat transitions where there are none.

Flat layout, `transitions.hdf5` (the keys that D4RL's Q-learning sets have): `observations`, `next_observations`
(N, S) float32 without task ids, `actions` (N, A), `rewards` (N,) float32, `terminals`, `timeouts` (N,) bool. Rows are
independent of each other. Either comes with a card, README.md, that tells how it was made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from offline_compositional_rl_datasets.hdf5 import read_arrays
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions, check_actions, check_flags
from runtime.atomic import atomic_path, write_text
from runtime.errors import DataError, StateError, TaskError
from runtime.hdf5 import attribute, find, open_hdf5, read

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from minari import MinariDataset

TRANSITIONS_FILE = "transitions.hdf5"
CARD_FILE = "README.md"
_FLAT_KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


@dataclass(frozen=True)
class Card:
    """What a reader of a data set wants to know. `facts` are further lines, such as versions and settings."""

    title: str
    task: Task
    origin: str
    success: str
    licence: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def text(self, size: str, layout_lines: Sequence[str]) -> str:
        """The card in Markdown."""
        axes = ", ".join(f"{axis} {getattr(self.task, axis)}" for axis in self.task.axes())
        lines = [
            f"# {self.title}", "", f"Task `{self.task}`: {axes}.", "",
            f"- **Origin:** {self.origin}", f"- **Size:** {size}", f"- **Success:** {self.success}",
            f"- **Licence:** {self.licence}", "", "## Layout", "", *layout_lines,
        ]  # fmt: skip
        if self.facts:
            lines += ["", "## How it was made", "", *(f"- {name}: {value}" for name, value in self.facts.items())]
        return "\n".join(lines) + "\n"


def state_lines(layout: FactoredLayout) -> list[str]:
    """Where each factor is in a state, as lines of a card."""
    parts = [f"{name} {part.start}:{part.stop}" for name, part in layout.factor_slices.items()]
    return [f"An observation ({layout.state_dim}, float32) is a state, without task ids: {', '.join(parts)}."]


def minari_id(family: str, task: Task, kind: str, version: int = 0) -> str:
    """The name under which Minari knows the data of a task, `<family>/<task>/<kind>-v<version>`."""
    return f"{family}/{task.name}/{kind}-v{version}"


def write_minari(source: Path, dataset_id: str, root: Path, card: Card, *, env: EnvSpec | None = None) -> MinariDataset:
    """Write the episodes of an expert file as Minari data set `dataset_id` under `root`, with a card.

    The file has no observation after an episode's last step. An episode that the horizon or a shove cut off therefore
    lacks that step; one that terminated keeps it, with the observation itself after it, which nothing bootstraps from.
    Observations are without task ids; `infos["success"]` tells the success of the step that led to each observation.
    Raises `StateError` where the data set is there already, `DataError` for a file that `read_arrays` refuses.
    """
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    if (Path(root) / dataset_id).exists():
        raise StateError(f"{Path(root) / dataset_id}: there already; move it away or choose another --out")
    layout = card.task.layout
    arrays = read_arrays(source, layout)
    states, _ = layout.split_ids(arrays["observations"])
    terminals, ends = arrays["terminals"].astype(bool), (arrays["terminals"] | arrays["timeouts"]).astype(bool)
    ends[-1] = True
    buffers: list[EpisodeBuffer] = []
    start = 0
    for last in np.flatnonzero(ends):
        terminated = bool(terminals[last])
        stop = last + 1 if terminated else last
        if stop > start:
            observations = np.concatenate([states[start : last + 1], states[last : last + 1]])[: stop - start + 1]
            flags = np.zeros((2, stop - start), bool)
            flags[0 if terminated else 1, -1] = True
            successes = np.concatenate([[False], arrays["successes"][start:stop] > 0])
            buffers.append(
                EpisodeBuffer(
                    id=len(buffers),
                    observations=observations.astype(np.float32),
                    actions=arrays["actions"][start:stop].astype(np.float32),
                    rewards=arrays["rewards"][start:stop].astype(np.float64),
                    terminations=flags[0],
                    truncations=flags[1],
                    infos={"success": successes},
                )
            )
        start = int(last) + 1
    if not buffers:
        raise DataError(f"{source}: no episode of two steps or more")
    with minari_root(root):
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=env,
            eval_env=env,
            observation_space=Box(-np.inf, np.inf, (layout.state_dim,), np.float32),
            action_space=Box(-1.0, 1.0, (layout.action_dim,), np.float32),
            algorithm_name=card.origin,
            description=card.title,
            author="unknown",
            author_email="unknown",
            code_permalink="unknown",
        )
    steps = sum(len(buffer.rewards) for buffer in buffers)
    lines = [
        f'A Minari data set: `minari.load_dataset("{dataset_id}")` with `MINARI_DATASETS_PATH` set to this root.',
        *state_lines(layout),
        f"Actions ({layout.action_dim}, float32) are in [-1, 1].",
        '`infos["success"][t]` is the success of the step that led to observation t.',
    ]
    write_text(Path(root) / dataset_id / CARD_FILE, card.text(f"{len(buffers)} episodes, {steps} steps", lines))
    return dataset


class minari_root:  # noqa: N801 - used as a function
    """Let Minari read and write under `root` while open; it knows its place by an environment variable alone."""

    def __init__(self, root: Path) -> None:
        self._root = str(Path(root).absolute())

    def __enter__(self) -> None:
        self._before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = self._root
        Path(self._root).mkdir(parents=True, exist_ok=True)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = self._before


def from_minari(dataset: MinariDataset, task: Task | None = None) -> Transitions:
    """All transitions of a Minari data set. Raises `DataError` for an action beyond [-1, 1]."""
    episodes = list(dataset.iterate_episodes())
    actions = np.concatenate([episode.actions for episode in episodes])
    check_actions(actions, "actions of the Minari data set")
    return Transitions(
        states=np.concatenate([episode.observations[:-1] for episode in episodes]),
        actions=actions,
        rewards=np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
        next_states=np.concatenate([episode.observations[1:] for episode in episodes]),
        terminals=np.concatenate([episode.terminations for episode in episodes]),
        timeouts=np.concatenate([episode.truncations for episode in episodes]),
        task=task,
    )


def write_flat(transitions: Transitions, folder: Path, card: Card) -> Path:
    """Write transitions and their card into `folder`; gives the data file. Raises `StateError` where one is there."""
    path = Path(folder) / TRANSITIONS_FILE
    if path.exists():
        raise StateError(f"{path}: there already; move it away or choose another --out")
    layout = card.task.layout
    transitions.validate(str(path), layout)
    with atomic_path(path) as temporary, h5py.File(temporary, "w", locking=False) as file:
        for key, array in transitions.published().items():
            file.create_dataset(key, data=array, compression="gzip", shuffle=True)
        file.attrs["task"] = card.task.name
    lines = [
        f"`{TRANSITIONS_FILE}` (HDF5, the keys of D4RL's Q-learning sets): `observations`, `next_observations`, "
        "`actions`, `rewards`, `terminals`, `timeouts`, a row per transition.",
        *state_lines(layout),
        "Rows are independent: there are no episodes, and row i + 1 does not follow row i.",
    ]
    write_text(path.with_name(CARD_FILE), card.text(f"{len(transitions)} transitions", lines))
    return path


def read_flat(path: Path, task_class: type[Task]) -> Transitions:
    """Raises `DataError` where the file is missing or not in the flat layout."""
    with open_hdf5(path) as file:
        found = {key: find(file, key) for key in _FLAT_KEYS}
        name = attribute(file, "task")
        numbers = [key for key, data in found.items() if isinstance(data, h5py.Dataset) and data.dtype.kind in "fbiu"]
        if len(numbers) < len(_FLAT_KEYS) or not isinstance(name, str):
            raise DataError(
                f"{path}: not in the flat layout, expected numbers under {', '.join(_FLAT_KEYS)} and the attribute task"
            )
        arrays = {key: read(data) for key, data in found.items()}
    try:
        task = task_class.parse(name)
    except TaskError as error:
        raise DataError(f"{path}: {error}") from error
    transitions = Transitions.from_published(arrays, task)
    transitions.validate(str(path), task.layout)
    for key in ("terminals", "timeouts"):
        check_flags(arrays[key], f"{path}: {key}")
        arrays[key] = arrays[key].astype(bool)
    return Transitions.from_published(arrays, task)
