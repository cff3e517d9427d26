"""Data sets of others as task files: read back to the bit what was exported, and one line for what is damaged."""

import dataclasses
import itertools
import json
import shutil

import h5py
import minari
import numpy as np
import pandas
import pyarrow
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer
from pyarrow import parquet

from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.export import Card, from_minari, minari_id, minari_root, write_minari
from offline_compositional_rl_datasets.hdf5 import Episode, read_arrays, read_expert, task_file, write_expert
from offline_compositional_rl_datasets.import_formats import find_trajectories
from offline_compositional_rl_datasets.import_lerobot import lerobot_trajectories, open_lerobot
from offline_compositional_rl_datasets.import_minari import open_minari
from offline_compositional_rl_datasets.importing import write_tasks
from offline_compositional_rl_datasets.lerobot import write_lerobot
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.errors import ConfigError, DataError, StateError, TaskError
from scripts.import_data import ReadingFlags, main
from tests.data.test_layout import layouts

TASKS = [CompoSuiteTask.parse("IIWA_Box_None_Push"), CompoSuiteTask.parse("IIWA_Plate_None_Shelf")]
KEYS = ("object", "obstacle", "goal", "robot")


def import_data(format, source, *reading, data_path, dataset_type="expert", **more):
    main(format, source, ReadingFlags(*reading, **more), data_path, dataset_type)


def _episode(steps, *, terminated, seed):
    random = np.random.default_rng(seed)
    states = random.standard_normal((steps, COMPOSUITE.state_dim)).astype(np.float32)
    for part in COMPOSUITE.relative_quaternions:
        states[:, part] = (1, 0, 0, 0)
    return Episode(
        states,
        random.uniform(-1, 1, (steps, COMPOSUITE.action_dim)).astype(np.float32),
        random.random(steps).astype(np.float32),
        np.arange(steps) == steps - 1,
        terminated,
    )


EPISODES = {
    TASKS[0]: [_episode(6, terminated=False, seed=0), _episode(4, terminated=True, seed=1)],
    TASKS[1]: [_episode(5, terminated=True, seed=2)],
}


def _parts():
    return zip(KEYS, COMPOSUITE.factor_slices.values(), strict=True)


def _card(task):
    return Card("a title", task, "made for a test", "0.50", "MIT")


def _files(folder, episodes=EPISODES):
    for task, each in episodes.items():
        write_expert(task_file(folder, "expert", task), each, task)
    return {task: task_file(folder, "expert", task) for task in episodes}


def _lerobot(tmp_path, episodes=EPISODES):
    sources = [(path, _card(task)) for task, path in _files(tmp_path / "data", episodes).items()]
    return write_lerobot(sources, tmp_path / "lerobot", fps=20, robot="IIWA")


def _minari(tmp_path, episodes=EPISODES[TASKS[0]]):
    files = _files(tmp_path / "data", {TASKS[0]: episodes})
    name = minari_id("composuite", TASKS[0], "expert")
    write_minari(files[TASKS[0]], name, tmp_path / "minari", _card(TASKS[0]))
    return tmp_path / "minari" / name


def _robomimic(tmp_path, *, next_obs=True, episodes=EPISODES[TASKS[0]]):
    path = tmp_path / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        for i, episode in enumerate(episodes):
            group = file.create_group(f"data/demo_{i}")
            group["actions"] = episode.actions.astype(np.float64)
            group["rewards"] = episode.successes.astype(np.float64) * episode.terminated
            for key, part in _parts():
                group[f"obs/{key}"] = episode.states[:, part]
                if next_obs:
                    after = np.concatenate([episode.states[1:], episode.states[:1]])
                    group[f"next_obs/{key}"] = after[:, part]
        file["mask/good"] = np.array(["demo_1"], dtype="S")
    return path


def _same(left, right, *, leaving=()):
    for name in set(Transitions.arrays()) - set(leaving):
        one, other = getattr(left, name), getattr(right, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# Round trips


def test_a_lerobot_export_is_imported_to_the_bit(tmp_path, capsys):
    folder = _lerobot(tmp_path)
    import_data("lerobot", folder, data_path=tmp_path / "back", dataset_type="mine")
    for task in TASKS:
        back = read_arrays(task_file(tmp_path / "back", "mine", task), COMPOSUITE)
        for key, array in read_arrays(task_file(tmp_path / "data", "expert", task), COMPOSUITE).items():
            np.testing.assert_array_equal(back[key], array)
            assert back[key].dtype == array.dtype
    assert "IIWA_Box_None_Push: 10 rows, 2 episodes, success 1.00" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["mine-iiwa-offline-comp-data"]


def test_a_minari_export_is_imported_with_the_same_transitions_to_the_bit(tmp_path):
    folder = _minari(tmp_path)
    import_data("minari", folder, data_path=tmp_path / "back")
    _same(
        read_expert(task_file(tmp_path / "back", "expert", TASKS[0]), TASKS[0]),
        read_expert(task_file(tmp_path / "data", "expert", TASKS[0]), TASKS[0]),
    )


def test_an_imported_minari_set_is_exported_as_it_came(tmp_path):
    folder = _minari(tmp_path)
    import_data("minari", folder, data_path=tmp_path / "back")
    source = task_file(tmp_path / "back", "expert", TASKS[0])
    again = write_minari(source, minari_id("composuite", TASKS[0], "expert"), tmp_path / "again", _card(TASKS[0]))
    for one, other in zip(open_minari(folder), again, strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.infos["success"], other.infos["success"])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(2, 9), st.booleans()), min_size=1, max_size=4), st.integers(0, 99))
def test_episodes_of_any_length_and_end_survive_both_ways(tmp_path_factory, lengths, seed):
    folder = tmp_path_factory.mktemp("way")
    episodes = [_episode(steps, terminated=end, seed=seed + i) for i, (steps, end) in enumerate(lengths)]
    for format, source in (("lerobot", _lerobot(folder, {TASKS[0]: episodes})), ("minari", None)):
        source = source or _minari(folder, episodes)
        write_tasks(find_trajectories(format, source, parse=CompoSuiteTask.parse), folder / format, "expert")
        back = read_expert(task_file(folder / format, "expert", TASKS[0]), TASKS[0])
        _same(back, read_expert(task_file(folder / "data", "expert", TASKS[0]), TASKS[0]))
    shutil.rmtree(folder)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layouts(), st.integers(2, 6), st.booleans())
def test_tasks_of_any_layout_survive_both_ways(tmp_path_factory, layout, steps, end):
    fields = [(axis, str) for axis, _ in layout.axes]
    of_family = {"layout": layout, "family": "tests:FAMILY"}
    kind = dataclasses.make_dataclass("AnyTask", fields, bases=(Task,), namespace=of_family, frozen=True, order=True)
    task, folder = kind(*(elements[-1] for _, elements in layout.axes)), tmp_path_factory.mktemp("way")
    states = np.random.default_rng(steps).standard_normal((steps, layout.state_dim)).astype(np.float32)
    zeros = np.zeros((steps, layout.action_dim), np.float32)
    path = task_file(folder / "data", "expert", task)
    write_expert(path, [Episode(states, zeros, zeros[:, 0], zeros[:, 0], end)], task)
    lerobot = write_lerobot([(path, _card(task))], folder / "lerobot", fps=20, robot="any")
    write_minari(path, "any/data-v0", folder / "minari", _card(task))
    for format, source in (("lerobot", lerobot), ("minari", folder / "minari/any/data-v0")):
        found = find_trajectories(format, source, task=task.name, parse=kind.parse)
        write_tasks(found, folder / format, "expert")
        _same(read_expert(task_file(folder / format, "expert", task), task), read_expert(path, task))
    shutil.rmtree(folder)


def test_a_robomimic_file_gives_its_demonstrations(tmp_path):
    import_data("robomimic", _robomimic(tmp_path), task=TASKS[0].name, keys=KEYS, data_path=tmp_path / "back")
    back = read_arrays(task_file(tmp_path / "back", "expert", TASKS[0]), COMPOSUITE)
    first, second = EPISODES[TASKS[0]]
    states, _ = COMPOSUITE.split_ids(back["observations"])
    np.testing.assert_array_equal(states[:6], first.states)
    np.testing.assert_array_equal(states[6], first.states[0])  # what next_obs says of the last step
    np.testing.assert_array_equal(states[7:], second.states)
    np.testing.assert_array_equal(back["actions"][:6], first.actions)
    assert np.flatnonzero(back["timeouts"]).tolist() == [6]
    assert np.flatnonzero(back["terminals"]).tolist() == [10]
    assert np.flatnonzero(back["successes"]).tolist() == [10]


def test_data_of_another_rate_are_refused(tmp_path):
    robomimic, lerobot = _robomimic(tmp_path), _lerobot(tmp_path)
    with h5py.File(robomimic, "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 40}})
    info = lerobot / "meta" / "info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "fps": 30}))
    for format, source, rate in (("robomimic", robomimic, 40), ("lerobot", lerobot, 30)):
        with pytest.raises(DataError, match=rf"{source}: {rate} steps per second, expected .*control_frequency, 20"):
            import_data(format, source, TASKS[0].name, KEYS if format == "robomimic" else (), data_path=tmp_path / "b")
    info.write_text(json.dumps({**content, "fps": "fast"}))
    with pytest.raises(DataError, match=r"info\.json: fps 'fast', expected a number above 0"):
        import_data("lerobot", lerobot, data_path=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_mask_of_a_robomimic_file_chooses_demonstrations(tmp_path):
    path = _robomimic(tmp_path, next_obs=False)
    import_data("robomimic", path, TASKS[0].name, KEYS, "good", data_path=tmp_path / "back")
    assert len(read_arrays(task_file(tmp_path / "back", "expert", TASKS[0]), COMPOSUITE)["rewards"]) == 4


# Layouts of others


def _minari_of(tmp_path, buffers, space, name="lab/robot-v0"):
    with minari_root(tmp_path / "minari"):
        minari.create_dataset_from_buffers(
            name, buffers, observation_space=space, action_space=spaces.Box(-1, 1, (8,), np.float64),
            algorithm_name="x", author="x", author_email="x", code_permalink="x", description="x",
        )  # fmt: skip
    return tmp_path / "minari" / name


def _buffer(observations, steps=3, rewards=(0.0, 0.5, 1.0)):
    return EpisodeBuffer(
        id=0, observations=observations, actions=np.zeros((steps, 8)), rewards=list(rewards),
        terminations=[False] * steps, truncations=[False] * (steps - 1) + [True], infos={},
    )  # fmt: skip


def test_named_observations_of_a_minari_set_are_joined_in_the_order_asked_for(tmp_path):
    states = EPISODES[TASKS[0]][1].states
    parts = {key: states[:, part] for key, part in _parts()}
    space = spaces.Dict({key: spaces.Box(-np.inf, np.inf, part.shape[1:], np.float32) for key, part in parts.items()})
    folder = _minari_of(tmp_path, [_buffer(parts)], space)
    import_data("minari", folder, task=TASKS[0].name, keys=KEYS, data_path=tmp_path / "back")
    back = read_arrays(task_file(tmp_path / "back", "expert", TASKS[0]), COMPOSUITE)
    np.testing.assert_array_equal(COMPOSUITE.split_ids(back["observations"])[0], states)
    assert back["successes"].tolist() == [0, 0, 1, 1], "a step of reward 1; the last row is what came after it"
    assert back["rewards"].tolist() == [0, 0.5, 1, 0]
    with pytest.raises(DataError, match="expected --keys, the names and their order, of goal, object, obstacle, robot"):
        import_data("minari", folder, task=TASKS[0].name, data_path=tmp_path / "none")
    with pytest.raises(ConfigError, match="'lab/robot-v0' has no task; --task says"):
        import_data("minari", folder, keys=KEYS, data_path=tmp_path / "none")


def _rewrite(folder, change):
    for file in folder.glob("data/*/*.parquet"):
        change(pandas.read_parquet(file)).to_parquet(file)
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"] = {name: {} for name in pandas.read_parquet(file).columns}
    (folder / "meta/info.json").write_text(json.dumps(info))


def test_demonstrations_without_rewards_are_solved_by_their_last_step_where_that_is_said(tmp_path):
    folder = _lerobot(tmp_path)
    _rewrite(folder, lambda frames: frames.drop(columns=[name for name in frames if name.startswith("next.")]))
    with pytest.raises(DataError, match=r"neither next\.reward nor next\.success; expected one, or --dem"):
        import_data("lerobot", folder, data_path=tmp_path / "back")
    import_data("lerobot", folder, demonstrations=True, data_path=tmp_path / "back")
    back = read_arrays(task_file(tmp_path / "back", "expert", TASKS[0]), COMPOSUITE)
    for key in ("rewards", "successes", "terminals"):
        assert np.flatnonzero(back[key]).tolist() == [5, 9]


def test_lists_of_variable_length_are_read_like_those_of_fixed_length(tmp_path):
    folder = _lerobot(tmp_path)
    _rewrite(folder, lambda frames: frames)  # pandas writes lists
    import_data("lerobot", folder, data_path=tmp_path / "back")
    back, data = (read_arrays(task_file(tmp_path / name, "expert", TASKS[0]), COMPOSUITE) for name in ("back", "data"))
    np.testing.assert_array_equal(back["observations"], data["observations"])


def test_observations_with_ids_are_of_the_task_that_they_say(tmp_path):
    states = np.zeros((4, COMPOSUITE.state_dim), np.float32)
    folder = _minari_of(
        tmp_path,
        [_buffer(COMPOSUITE.join_ids(states, TASKS[0].one_hot))],
        spaces.Box(-np.inf, np.inf, (93,), np.float32),
    )
    import_data("minari", folder, task=TASKS[0].name, data_path=tmp_path / "back")
    with pytest.raises(DataError, match=f"row 0 has the ids of another task, expected {TASKS[1]}"):
        import_data("minari", folder, task=TASKS[1].name, data_path=tmp_path / "back")


# What is refused


def test_nothing_is_overwritten_and_a_fault_in_one_task_writes_none(tmp_path):
    folder = _lerobot(tmp_path)
    with pytest.raises(StateError, match=r"data\.hdf5: there already"):
        import_data("lerobot", folder, data_path=tmp_path / "data")
    shorter = {**EPISODES, TASKS[1]: [Episode(**{**vars(EPISODES[TASKS[1]][0]), "rewards": np.full(5, 7.0)})]}
    with pytest.raises(DataError, match=f"as data of {TASKS[1]}: row 0: reward outside"):
        import_data("lerobot", _lerobot(tmp_path / "second", shorter), data_path=tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"format": "minari", "filter_key": "good"}, ConfigError, "is for robomimic files, not for minari"),
        ({"format": "robomimic", "demonstrations": True}, ConfigError, "is for lerobot data sets"),
        ({"format": "robomimic"}, ConfigError, "--task: expected the task"),
        ({"format": "robomimic", "task": "IIWA_Box"}, TaskError, "has 2 parts"),
        ({"format": "robomimic", "task": str(TASKS[0])}, DataError, "expected --keys"),
        ({"format": "robomimic", "task": str(TASKS[0]), "keys": ("x",)}, DataError, "no such data file"),
        ({"format": "lerobot"}, DataError, r"info\.json: no such file"),
        ({"format": "minari"}, DataError, r"metadata\.json: no such file"),
    ],
)
def test_flags_that_do_not_fit_are_told(flags, error, message, tmp_path):
    with pytest.raises(error, match=message):
        import_data(source=tmp_path / "nothing", data_path=tmp_path, **flags)


def _set(name, **changes):
    def change(folder):
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _cut(name, size=300):
    def change(folder):
        file = sorted(folder.glob(name))[0]
        file.write_bytes(file.read_bytes()[:-size])

    return change


def _frames(change):
    return lambda folder: _rewrite(folder, change)


def _column(values, name="action"):
    """The rows of a file have these values in turn."""
    return _frames(lambda frames: frames.assign(**{name: list(itertools.islice(itertools.cycle(values), len(frames)))}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("meta/info.json", codebase_version="v2.1"), "codebase_version 'v2.1', expected 'v3.0'"),
        (_set("meta/info.json", features=3), "features is a int"),
        (_set("meta/info.json", features={"action": {}}), "no column 'observation.state'"),
        (_cut("data/*/*.parquet"), "not a readable Parquet file"),
        (_cut("meta/episodes/*/*.parquet"), "not a readable Parquet file"),
        (lambda folder: shutil.rmtree(folder / "data"), "no such data file"),
        (lambda folder: shutil.rmtree(folder / "meta/episodes"), r"no chunk-\*/file-\*\.parquet"),
        (_frames(lambda frames: frames.drop(columns="action")), "no column 'action'"),
        (_frames(lambda frames: frames.iloc[1:]), "episode 0 has 5 frames in a row, expected 6"),
        (_column(["x"]), "action holds .*string.*, expected numbers"),
        (_column([[1.0], [1.0] * 2]), "expected rows of one length|different lengths"),
        (_column([[1.0] * 2, [1.0] * 4]), "different lengths"),
        (_column([[0.0] * 7]), r"actions has shape \(6, 7\)"),
        (_column([[0.0] * 7 + [1.5]]), r"1\.5 in row 0, expected actions in"),
        (_column([[np.inf] * 8]), "not finite in row 0"),
        (_column([[None] * 8]), "actions has dtype object|gaps"),
        (_column([1.0, None], "next.reward"), "gaps|not finite"),
        (_column([True], "next.done"), r"next\.done, expected flags"),
    ],
)  # fmt: skip
def test_a_damaged_lerobot_set_is_one_line_and_nothing_is_written(damage, message, tmp_path):
    folder = _lerobot(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        import_data("lerobot", folder, data_path=tmp_path / "back")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "back").exists() or not list((tmp_path / "back").iterdir())


def test_a_small_parquet_file_that_stands_for_gigabytes_is_not_read(tmp_path):
    folder = _lerobot(tmp_path)
    zeros = pyarrow.array(np.zeros(5_000_000, np.int8))
    part = pyarrow.table({"episode_index": zeros, "action": zeros, "next.reward": zeros})
    with parquet.ParquetWriter(folder / "data/chunk-000/file-000.parquet", part.schema) as writer:
        for _ in range(4):
            writer.write_table(part)
    _set("meta/info.json", features=dict.fromkeys(part.column_names))(folder)
    with pytest.raises(DataError, match=r"claims 480,000,000 bytes, of which the file holds [\d,]+$"):
        list(lerobot_trajectories(open_lerobot(folder), keys=["action"]))


def test_a_lerobot_task_that_is_none_of_the_family_is_told_with_the_way_out(tmp_path):
    folder = _lerobot(tmp_path)
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    pandas.read_parquet(file).assign(tasks=[["pick up the cup"]] * 3).to_parquet(file)
    with pytest.raises(TaskError, match=r"'pick up the cup' has 1 parts.*; --task says which it is"):
        import_data("lerobot", folder, data_path=tmp_path / "back")
    import_data("lerobot", folder, task=TASKS[1].name, data_path=tmp_path / "back")
    assert len(read_arrays(task_file(tmp_path / "back", "expert", TASKS[1]), COMPOSUITE)["rewards"]) == 15


def _link(folder):
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = h5py.ExternalLink("/etc/hostname", "x")


def _in_file(change):
    def damage(folder):
        with h5py.File(folder / "data/main_data.hdf5", "a") as file:
            change(file["episode_0"])

    return damage


def _replace(name, value):
    def change(group):
        del group[name]
        group[name] = value

    return _in_file(change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("data/metadata.json", data_format="arrow"), "data_format 'arrow', expected 'hdf5'"),
        (_set("data/metadata.json", observation_space=None), "observation_space is None, expected text"),
        (_set("data/metadata.json", observation_space="nonsense"), "not a Minari data set"),
        (_set("data/metadata.json", minari_version="9.9"), "not a Minari data set"),
        (_set("data/metadata.json", total_episodes=0), "no episodes"),
        (_set("data/metadata.json", total_episodes=9), "episode 2 is damaged"),
        (lambda folder: (folder / "data/metadata.json").write_text("{"), "not a JSON file"),
        (lambda folder: (folder / "data/main_data.hdf5").unlink(), "no such data file"),
        (_cut("data/main_data.hdf5"), "not a readable HDF5 file|cannot be"),
        (_link, "is a link to another place"),
        (_in_file(lambda group: group.__delitem__("actions")), "episode 0 is damaged"),
        (_replace("rewards", np.zeros(3)), "episode 0: terminations, expected 3 flags"),
        (_replace("observations", np.zeros((2, 77))), r"observations has shape \(2, 77\), expected 5 rows"),
        (_replace("observations", np.full((6, 77), np.inf)), "not finite in row 0"),
        (_replace("infos/success", np.zeros(2)), r"success has shape \(2,\), expected \(6,\)"),
    ],
)  # fmt: skip
def test_a_damaged_minari_set_is_one_line_and_nothing_is_written(damage, message, tmp_path):
    folder = _minari(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        import_data("minari", folder, data_path=tmp_path / "back")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "back").exists() or not list((tmp_path / "back").iterdir())


def test_an_environment_that_the_metadata_name_is_not_made(tmp_path):
    """Without spaces Minari's loader imports and makes it, which is to run what the data set says."""
    folder = _minari(tmp_path)
    mark = tmp_path / "mark"
    spec = json.dumps({"id": "x-v0", "entry_point": f"pathlib:Path('{mark}').touch", "kwargs": {}})
    _set("data/metadata.json", env_spec=spec, observation_space=None)(folder)
    with pytest.raises(DataError, match="observation_space is None"):
        open_minari(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actions", np.zeros((6, 7)), r"actions has shape \(6, 7\), expected \(6, 8\)"),
        ("actions", np.full((6, 8), 2.0), "has 2 in row 0, expected actions in"),
        ("rewards", np.zeros(5), r"rewards has shape \(5,\), expected \(6,\)"),
        ("rewards", np.array([b"x"] * 6), r"rewards holds \|S1"),
        ("obs/goal", np.zeros((6, 3)), r"observations has shape \(6, 63\)|rows of 77"),
        ("obs/goal", np.zeros((5, 17)), "obs/goal has 5 rows, actions have 6"),
        ("obs/goal", np.full((6, 17), np.nan), "not finite"),
        ("obs/goal", None, "has no 'obs/goal'; found object, obstacle, robot"),
        ("rewards", None, "has no 'rewards'"),
    ],
)
def test_a_damaged_robomimic_file_is_one_line_and_nothing_is_written(name, value, message, tmp_path):
    path = _robomimic(tmp_path, next_obs=False)
    with h5py.File(path, "a") as file:
        del file[f"data/demo_0/{name}"]
        if value is not None:
            file[f"data/demo_0/{name}"] = value
    with pytest.raises(DataError, match=message):
        import_data("robomimic", path, TASKS[0].name, KEYS, data_path=tmp_path / "back")
    assert not list((tmp_path / "back").iterdir())


def test_a_mask_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(DataError, match="no mask 'best'; found good"):
        import_data("robomimic", _robomimic(tmp_path), TASKS[0].name, KEYS, "best", data_path=tmp_path / "back")


def test_transitions_of_an_import_are_those_of_the_data_set(tmp_path):
    folder = _minari(tmp_path)
    import_data("minari", folder, data_path=tmp_path / "back")
    _same(
        read_expert(task_file(tmp_path / "back", "expert", TASKS[0]), TASKS[0]),
        from_minari(open_minari(folder), TASKS[0]),
        leaving={"timeouts"},  # which the row after the last step has
    )
