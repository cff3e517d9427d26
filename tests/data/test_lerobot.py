"""Expert data as LeRobot data sets: the files of the format's version 3.0, and the frames in them."""

import functools
import json

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from envs.family import find_family
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.export import Card
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.lerobot import joined, statistics, write_lerobot
from runtime.errors import ConfigError, DataError, StateError
from scripts.export_data import main as export_data

TASKS = [CompoSuiteTask.parse("IIWA_Box_None_Push"), CompoSuiteTask.parse("IIWA_Plate_None_Shelf")]
LENGTHS = {TASKS[0]: (6, 4), TASKS[1]: (5,)}


def _episode(steps, *, terminated, seed):
    random = np.random.default_rng(seed)
    return Episode(
        random.standard_normal((steps, 77)).astype(np.float32),
        random.uniform(-1, 1, (steps, 8)).astype(np.float32),
        random.random(steps).astype(np.float32),
        np.arange(steps) % 2,
        terminated,
    )


@pytest.fixture
def episodes():
    """By task; the second episode of the first task terminated, the others were cut off."""
    return {
        task: [_episode(steps, terminated=i == 1, seed=i) for i, steps in enumerate(LENGTHS[task])] for task in TASKS
    }


@pytest.fixture
def folder(episodes, tmp_path):
    sources = []
    for task in TASKS:
        path = task_file(tmp_path / "data", "expert", task)
        write_expert(path, episodes[task], task)
        sources.append((path, Card("a title", task, "made for a test", "0.50", "MIT", {"seed": 7})))
    return write_lerobot(sources, tmp_path / "out" / "set", fps=20, robot="IIWA")


def _frames(folder):
    return pandas.concat([pandas.read_parquet(path) for path in sorted(folder.glob("data/*/*.parquet"))])


def test_every_step_is_a_frame_with_its_place(folder, episodes):
    frames, all_episodes = _frames(folder), [e for task in TASKS for e in episodes[task]]
    states = np.concatenate([each.states for each in all_episodes])
    np.testing.assert_array_equal(np.stack(frames["observation.state"]), states)
    np.testing.assert_array_equal(np.stack(frames["action"]), np.concatenate([each.actions for each in all_episodes]))
    assert frames["index"].tolist() == list(range(15))
    assert frames["episode_index"].tolist() == [0] * 6 + [1] * 4 + [2] * 5
    assert frames["task_index"].tolist() == [0] * 10 + [1] * 5
    np.testing.assert_allclose(frames["timestamp"], frames["frame_index"] / 20)
    assert np.flatnonzero(frames["next.done"]).tolist() == [5, 9, 14]
    assert np.flatnonzero(frames["next.truncated"]).tolist() == [5, 14]


@pytest.mark.parametrize(("rate", "told"), [(50, "50 per second"), (12.5, "12.5 per second")])
def test_a_family_of_another_rate_is_exported_with_its_own(rate, told, tmp_path, monkeypatch):
    family = find_family("examples.point_family:FAMILY")
    task = family.tasks()[0]
    states, zeros = np.zeros((4, 8), np.float32), np.zeros((4, 2), np.float32)
    ends = Episode(states, zeros, zeros[:, 0], zeros[:, 0], False)
    write_expert(task_file(tmp_path / "data", "expert", task), [ends], task)
    export = functools.partial(export_data, tmp_path / "out", tasks=(task.name,), data_path=tmp_path / "data",
                               format="lerobot", family="examples.point_family:FAMILY")  # fmt: skip
    with pytest.raises(ConfigError, match="family point: how many control steps a second has is not known, expected c"):
        export()
    monkeypatch.setattr(type(family), "control_frequency", rate)
    export()
    folder = tmp_path / "out" / "lerobot" / "point_expert"
    info = json.loads((folder / "meta/info.json").read_text())
    assert info["fps"] == rate and {each["fps"] for each in info["features"].values()} == {rate}
    np.testing.assert_allclose(_frames(folder)["timestamp"], np.arange(4) / rate)
    card = (folder / "README.md").read_text()
    assert "# point_expert, 1 task, LeRobot v3.0" in card and told in card
    assert "named by its body, place, wind" in card and "CompoSuite" not in card


def test_an_episode_is_found_by_its_row(folder):
    rows = pandas.read_parquet(folder / "meta/episodes/chunk-000/file-000.parquet")
    template = json.loads((folder / "meta/info.json").read_text())["data_path"]
    for _, row in rows.iterrows():
        path = template.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        own = pandas.read_parquet(folder / path).query(f"episode_index == {row['episode_index']}")
        assert own["index"].tolist() == list(range(row["dataset_from_index"], row["dataset_to_index"]))
        assert len(own) == row["length"]
        np.testing.assert_allclose(row["stats/action/max"], np.stack(own["action"]).max(0))


def test_the_metadata_are_those_of_version_3(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "IIWA")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 15, 2)
    assert info["splits"] == {"train": "0:3"}
    frames = _frames(folder)
    assert set(info["features"]) == set(frames.columns)
    for name, feature in info["features"].items():
        assert np.asarray(frames[name].iloc[0]).dtype == feature["dtype"]
        assert (np.asarray(frames[name].iloc[0]).shape or (1,)) == tuple(feature["shape"])
        assert feature["names"] is None or len(set(feature["names"])) == feature["shape"][0]
    tasks = pandas.read_parquet(folder / "meta/tasks.parquet")
    assert tasks["task_index"].to_dict() == {str(task): i for i, task in enumerate(TASKS)}
    stats = json.loads((folder / "meta/stats.json").read_text())
    np.testing.assert_allclose(stats["observation.state"]["std"], np.stack(frames["observation.state"]).std(0))
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "| 1 | IIWA_Plate_None_Shelf | 1 | 5 | 0.50 | made for a test |" in card


def test_lerobots_own_loader_reads_an_export_back(folder, episodes):
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")
    dataset = module.LeRobotDataset("local/set", root=folder, delta_timestamps={"action": [0.0, 0.05]})
    assert (len(dataset), dataset.num_episodes) == (15, 3)
    first, last = dataset[0], dataset[14]
    np.testing.assert_array_equal(first["action"], episodes[TASKS[0]][0].actions[:2])
    assert (last["task"], last["action_is_pad"].tolist()) == (str(TASKS[1]), [False, True])


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).flatmap(
        lambda sizes: st.tuples(*(arrays(np.float32, (n, 2), elements=st.floats(-100, 100, width=32)) for n in sizes))
    )
)
def test_statistics_of_episodes_join_to_those_of_all(parts):
    each = joined([statistics({"x": part})["x"] for part in parts])
    whole = statistics({"x": np.concatenate(parts)})["x"]
    assert set(each) == set(whole) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(each[name], whole[name], rtol=1e-5, atol=1e-4)


def test_the_command_makes_a_set_per_robot_or_nothing(episodes, tmp_path):
    (run,) = record(TASKS[0], CollectConfig(episodes=1, horizon=30), [0], lambda observations: np.zeros((1, 8)))
    names = ["IIWA_Box_None_Push", "Jaco_Box_None_Push"]
    for name in names:
        task = CompoSuiteTask.parse(name)
        write_expert(task_file(tmp_path, "expert", task), run.episodes, task)
    export_data(tmp_path / "out", tasks=tuple(names), data_path=tmp_path, format="lerobot")
    for robot, name in zip(("IIWA", "Jaco"), names, strict=True):
        folder = tmp_path / "out" / "lerobot" / f"composuite_{robot.lower()}_expert"
        assert json.loads((folder / "meta/info.json").read_text())["robot_type"] == robot
        assert pandas.read_parquet(folder / "meta/tasks.parquet").index.tolist() == [name]

    damaged = CompoSuiteTask.parse(names[0])
    write_expert(task_file(tmp_path, "expert", damaged), episodes[TASKS[0]], damaged)
    with pytest.raises(DataError, match=r"data\.hdf5"):
        export_data(tmp_path / "none", tasks=tuple(names), data_path=tmp_path, format="lerobot")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_a_set_is_refused(folder, tmp_path):
    with pytest.raises(StateError, match="there already"):
        write_lerobot([], folder, fps=20, robot="IIWA")
    with pytest.raises(ConfigError, match="made of episodes"):
        export_data(tmp_path, run=tmp_path, format="lerobot")
