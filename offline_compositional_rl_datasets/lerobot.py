"""Expert data as a LeRobot data set (format v3.0, low-dimensional, no video), without depending on LeRobot.

`LeRobotDataset(repo_id, root=folder)` of lerobot 0.4 reads it. A frame is a control step: the observation, the action
taken there, and under `next.` what that led to. No step is lost, since a frame holds no next observation. Layout:

    data/chunk-000/file-000.parquet             frames of all episodes, cut into files between episodes
    meta/info.json                              version, frames per second, names and shapes of the columns
    meta/stats.json                             statistics of every column
    meta/tasks.parquet                          task name -> task_index
    meta/episodes/chunk-000/file-000.parquet    per episode its task, length, place in the files and statistics
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_compositional_rl_datasets.export import CARD_FILE, Card, state_lines
from offline_compositional_rl_datasets.hdf5 import read_arrays
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import StateError

if TYPE_CHECKING:
    import pyarrow

VERSION = "v3.0"
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_FILES_PER_CHUNK = 1000
_MEGABYTES_PER_FILE = 100
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

Columns = dict[str, np.ndarray]
"""Name -> (T, ...) of the frames of one episode or of many."""


def features(layout: FactoredLayout) -> dict[str, dict[str, Any]]:
    """The columns of a frame: type, shape, and a name for every dimension of state and action."""

    def column(dtype: str, size: int = 1, names: list[str] | None = None) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [size], "names": names}

    state = [f"{factor.name}_{i}" for factor in layout.factors for i in range(factor.dim)]
    return {
        "observation.state": column("float32", layout.state_dim, state),
        "action": column("float32", layout.action_dim, [f"action_{i}" for i in range(layout.action_dim)]),
        "next.reward": column("float32"),
        "next.success": column("bool"),
        "next.done": column("bool"),
        "next.truncated": column("bool"),
        "timestamp": column("float32"),
        "frame_index": column("int64"),
        "episode_index": column("int64"),
        "index": column("int64"),
        "task_index": column("int64"),
    }


def write_lerobot(sources: Sequence[tuple[Path, Card]], folder: Path, *, fps: float, robot: str) -> Path:
    """Write the expert files of several tasks of one robot as one data set `folder`, whole or not at all.

    `sources` are the files with their cards, in the order of task_index; `fps` are the control steps per second.
    Observations are without task ids; the task's name is the frame's task. `next.done` marks every last step of an
    episode, `next.truncated` those that the horizon or a shove cut off. Raises `StateError` where the folder is there,
    `DataError` for a file that `read_arrays` refuses.
    """
    if folder.exists():
        raise StateError(f"{folder}: there already; move it away or choose another --out")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    writer = _Writer(partial, int(fps) if fps == int(fps) else fps, sources[0][1].task.layout)
    for path, card in sources:
        writer.add_task(path, card)
    writer.close(folder.name, robot)
    partial.replace(folder)
    return folder


def statistics(columns: Mapping[str, np.ndarray]) -> dict[str, Columns]:
    """Column -> min, max, mean, std (population), count and quantiles over the frames, each (D,); count is (1,)."""
    found = {}
    for name, values in columns.items():
        rows = values.reshape(len(values), -1).astype(np.float64)
        moments = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        quantiles = dict(zip(_QUANTILES, np.quantile(rows, list(_QUANTILES.values()), axis=0), strict=True))
        found[name] = moments | {"count": np.array([len(rows)])} | quantiles
    return found


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Columns:
    """The statistics of a column over several episodes from those of each.

    Exact but for the quantiles, which are weighted means of the episodes' own, as LeRobot joins them.
    """
    counts = np.array([part["count"][0] for part in parts])
    weights = (counts / counts.sum())[:, None]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    mean = (weights * stacked["mean"]).sum(0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(0)
    return {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([counts.sum()]),
        **{name: (weights * stacked[name]).sum(0) for name in _QUANTILES},
    }


@dataclass
class _Writer:
    """A data set under way: what is written, and the row of each episode."""

    folder: Path
    fps: float
    layout: FactoredLayout
    episodes: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[dict[str, Columns]] = field(default_factory=list)
    cards: list[tuple[Card, int, int]] = field(default_factory=list)  # with episodes and frames
    frames: int = 0
    files: int = 0

    def add_task(self, path: Path, card: Card) -> None:
        task_index, before = len(self.cards), (len(self.episodes), self.frames)
        waiting: list[Columns] = []
        for episode in _episodes(path, self.layout):
            waiting.append(self._add_episode(episode, card, task_index))
            if sum(part["action"].shape[0] for part in waiting) >= self._frames_per_file:
                self._write_frames(waiting)
                waiting = []
        if waiting:
            self._write_frames(waiting)
        self.cards.append((card, len(self.episodes) - before[0], self.frames - before[1]))

    @property
    def _frames_per_file(self) -> int:
        return _MEGABYTES_PER_FILE * 2**20 // (4 * (self.layout.state_dim + self.layout.action_dim + 10))

    def _add_episode(self, columns: Columns, card: Card, task_index: int) -> Columns:
        """The episode's frames with the columns that tell where they are; notes its row."""
        length, index = len(columns["action"]), len(self.episodes)
        steps = np.arange(length)
        columns |= {
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, index),
            "index": self.frames + steps,
            "task_index": np.full(length, task_index),
        }
        self.episodes.append(
            {
                "episode_index": index,
                "tasks": [card.task.name],
                "length": length,
                "dataset_from_index": self.frames,
                "dataset_to_index": self.frames + length,
                "data/chunk_index": self.files // _FILES_PER_CHUNK,
                "data/file_index": self.files % _FILES_PER_CHUNK,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        self.statistics.append(statistics(columns))
        self.frames += length
        return columns

    def _write_frames(self, parts: Sequence[Columns]) -> None:
        import pyarrow
        from pyarrow import parquet

        arrays = {
            name: _arrow(np.concatenate([part[name] for part in parts]), feature)
            for name, feature in features(self.layout).items()
        }
        place = {"chunk_index": self.files // _FILES_PER_CHUNK, "file_index": self.files % _FILES_PER_CHUNK}
        path = self.folder / _DATA.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(arrays), path)
        self.files += 1

    def close(self, title: str, robot: str) -> None:
        """Write what is known when all frames are written; `title` is the data set's name."""
        import pandas
        import pyarrow
        from pyarrow import parquet

        (self.folder / _EPISODES).parent.mkdir(parents=True)
        rows = [
            row | {f"stats/{name}/{kind}": value for name, kinds in each.items() for kind, value in kinds.items()}
            for row, each in zip(self.episodes, self.statistics, strict=True)
        ]
        parquet.write_table(pyarrow.Table.from_pylist(rows), self.folder / _EPISODES)
        names = [card.task.name for card, _, _ in self.cards]
        pandas.DataFrame({"task_index": range(len(names))}, index=names).to_parquet(self.folder / "meta/tasks.parquet")
        total = {name: joined([each[name] for each in self.statistics]) for name in features(self.layout)}
        total = {name: {kind: value.tolist() for kind, value in each.items()} for name, each in total.items()}
        info = {
            "codebase_version": VERSION,
            "robot_type": robot,
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": len(names),
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": _MEGABYTES_PER_FILE,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": _DATA,
            "video_path": None,
            "features": {name: each | {"fps": self.fps} for name, each in features(self.layout).items()},
        }
        for name, content in (("stats", total), ("info", info)):
            (self.folder / f"meta/{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (self.folder / CARD_FILE).write_text(self._card(title), encoding="utf-8")

    def _card(self, title: str) -> str:
        """The card in Markdown, with the header by which the Hugging Face hub finds data and licence."""
        cards = [card for card, _, _ in self.cards]
        licences = sorted({card.licence for card in cards})
        head = ["---", f"license: {licences[0].lower()}", "task_categories: [robotics]", "tags: [LeRobot]", "configs:"]
        head += ["- config_name: default", "  data_files: data/*/*.parquet", "---", ""]
        lines = [
            f"# {title}, {len(cards)} task{'' if len(cards) == 1 else 's'}, LeRobot {VERSION}",
            "",
            f"- **Size:** {len(self.episodes)} episodes, {self.frames} frames at {self.fps} per second",
            f"- **Licence:** {', '.join(licences)}",
            "",
            "| task_index | task | episodes | frames | success | origin |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for i, (card, episodes, frames) in enumerate(self.cards):
            lines.append(f"| {i} | {card.task} | {episodes} | {frames} | {card.success} | {card.origin} |")
        lines += ["", "## Layout", "", *state_lines(self.layout)]
        lines += [
            "`next.reward`, `next.success`, `next.done` and `next.truncated` are what the frame's action led to: done "
            "at an episode's last step, truncated where it was cut off instead of having terminated.",
            f"A frame's task is named by its {', '.join(cards[0].task.axes())}.",
        ]
        for card in cards:
            if card.facts:
                lines += ["", f"## How {card.task} was made", ""]
                lines += [f"- {name}: {value}" for name, value in card.facts.items()]
        return "\n".join([*head, *lines]) + "\n"


def _episodes(path: Path, layout: FactoredLayout) -> Iterator[Columns]:
    """The episodes of an expert file, each as its columns."""
    arrays = read_arrays(path, layout)
    states, _ = layout.split_ids(arrays["observations"])
    terminals = arrays["terminals"].astype(bool)
    ends = terminals | arrays["timeouts"].astype(bool)
    ends[-1] = True
    start = 0
    for stop in np.flatnonzero(ends) + 1:
        done = ends[start:stop]
        yield {
            "observation.state": states[start:stop].astype(np.float32, copy=False),
            "action": arrays["actions"][start:stop].astype(np.float32),
            "next.reward": arrays["rewards"][start:stop].astype(np.float32),
            "next.success": arrays["successes"][start:stop] > 0,
            "next.done": done,
            "next.truncated": done & ~terminals[start:stop],
        }
        start = int(stop)


def _arrow(values: np.ndarray, feature: Mapping[str, Any]) -> pyarrow.Array:
    """(N,) as a plain column, (N, D) as one of lists of fixed size."""
    import pyarrow

    kind = {"bool": pyarrow.bool_(), "float32": pyarrow.float32(), "int64": pyarrow.int64()}[feature["dtype"]]
    flat = pyarrow.array(values.reshape(-1), kind)
    return flat if values.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, feature["shape"][0])
