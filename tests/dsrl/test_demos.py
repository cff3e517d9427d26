import fcntl
import multiprocessing
import re
import shutil
import threading
import time

import h5py
import numpy as np
import pytest

from dsrl.collect_demos import DemoConfig, collect, fetch, main
from dsrl.demos import read_demonstrations
from dsrl.inspect_data import describe
from envs.robomimic.task import POLICY_KEYS, RobomimicTask
from runtime.errors import DataError, JobError, StateError
from tests.dsrl.conftest import call, run_command


def _changed(path, to, change):
    to.write_bytes(path.read_bytes())
    with h5py.File(to, "r+") as file:
        change(file)
    return to


def _narrow(file):
    values = file["data/demo_1/obs/object"][:, 1:]
    del file["data/demo_1/obs/object"]
    file["data/demo_1/obs/object"] = values


def test_a_recorded_file_has_the_groups_of_the_published_ones(demos):
    with h5py.File(demos) as file:
        assert RobomimicTask.from_env_args(file["data"].attrs["env_args"], "x") == RobomimicTask.standard("lift")
        assert sorted(file["data"]) == [f"demo_{i}" for i in range(4)]
        assert file["data"].attrs["total"] == sum(file[f"data/demo_{i}"].attrs["num_samples"] for i in range(4))
        demo = file["data/demo_1"]
        assert demo["states"].shape[1] == 32
        assert demo["actions"].dtype == demo["states"].dtype == np.float64
        assert np.abs(demo["actions"][:]).max() <= 1
        np.testing.assert_array_equal(demo["dones"][:], demo["rewards"][:] > 0)
        assert 1 <= demo["rewards"][:].sum() <= 6, "it goes on for five steps after the success"
        np.testing.assert_allclose(np.diff(demo["states"][:, 0]), 0.05, atol=1e-9)
        assert "<mujoco" in demo.attrs["model_file"]
        for key in POLICY_KEYS:
            np.testing.assert_array_equal(demo[f"obs/{key}"][1:], demo[f"next_obs/{key}"][:-1])
        assert not np.array_equal(demo["actions"], demo["executed_actions"]), "what is recorded is the way back"


def test_demonstrations_are_the_same_whoever_records_them_and_are_kept(demos, tmp_path):
    path = tmp_path / "again.hdf5"
    task = RobomimicTask.standard("lift")
    collect(task, DemoConfig(num_demos=4), path, workers=2)
    with h5py.File(demos) as one, h5py.File(path) as two:
        for name in one["data"]:
            np.testing.assert_array_equal(one[f"data/{name}/states"], two[f"data/{name}/states"])
    before = path.stat().st_mtime_ns
    collect(task, DemoConfig(num_demos=4), path)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(StateError, match="made by another configuration"):
        collect(task, DemoConfig(num_demos=5), path)


def test_a_killed_recording_process_ends_the_command_in_one_line(tmp_path):
    def kill_the_first():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    thread = threading.Thread(target=kill_the_first)
    thread.start()
    with pytest.raises(JobError, match="lift: a recording process was killed"):
        collect(RobomimicTask.standard("lift"), DemoConfig(num_demos=4), tmp_path / "demos.hdf5")
    thread.join()
    assert not list(tmp_path.iterdir())


def test_the_loader_sorts_by_number_decodes_masks_and_bears_holes(demos, tmp_path):
    def renumber(file):
        file["data"].move("demo_1", "demo_10")
        file.create_dataset("mask/some", data=np.array([b"demo_10", b"demo_2"]))
        for name in file["data"]:
            del file[f"data/{name}/next_obs"]

    path = _changed(demos, tmp_path / "holes.hdf5", renumber)
    assert read_demonstrations(path).names == ("demo_0", "demo_2", "demo_3", "demo_10")
    some = read_demonstrations(path, filter_key="some")
    assert some.names == ("demo_2", "demo_10")
    assert len(some) == some.lengths.sum() == len(some.observations)
    assert some.observations.shape[1] == 19
    assert read_demonstrations(path, num_demos=1).names == ("demo_0",)


def test_a_file_without_masks_is_read_whole(demos, tmp_path):
    path = _changed(demos, tmp_path / "bare.hdf5", lambda file: file.__delitem__("mask"))
    assert len(read_demonstrations(path).names) == 4
    with pytest.raises(DataError, match="no mask 'train'; found none at all"):
        read_demonstrations(path, filter_key="train")


def test_faults_of_a_file_are_named(demos, tmp_path):
    def spoil(name, change, match, **options):
        with pytest.raises(DataError, match=match):
            read_demonstrations(_changed(demos, tmp_path / name, change), **options)

    spoil("a", lambda f: f["data"].attrs.__delitem__("env_args"), "env_args")
    spoil("n", lambda f: f.move("data", "date"), "no group 'data'")
    spoil("o", lambda f: f["data/demo_2"].__delitem__("obs"), "demo_2 has no observations.*dataset_states_to_obs")
    spoil("b", lambda f: f["data/demo_2/obs"].__delitem__("object"), "demo_2 has no 'obs/object'; found robot0")
    spoil(
        "c",
        lambda f: f["data/demo_0/actions"].__setitem__((3, 1), np.nan),
        r"demo_0/actions are not finite \(row 3, number 1\)",
    )
    spoil("d", lambda f: None, "no mask 'best'; found train", filter_key="best")
    spoil("e", lambda f: None, "4 demonstrations, but num_demos is 9", num_demos=9)

    def replace(name, value):
        def change(file):
            del file[name]
            file[name] = value

        return change

    spoil(
        "h", replace("mask/train", np.array([b"demo_0", b"best"])), "names best, which is not there", filter_key="train"
    )
    spoil("i", replace("data/demo_1", np.zeros(3)), "demo_1 is an array")
    spoil("j", replace("data/demo_1/actions", 1.0), r"demo_1/actions holds float64 of shape \(\)")
    spoil("k", replace("data/demo_1/obs/object", np.array([b"a"] * 50)), "demo_1/obs/object holds")
    spoil("l", replace("data/demo_1/obs/object", 1.0), r"demo_1/obs/object holds float64 of shape \(\)")
    other = h5py.ExternalLink(str(demos), "data/demo_1/obs/object")
    spoil("n", replace("data/demo_0/obs/object", other), "data/demo_0/obs/object is a link to another place")
    spoil("o", replace("data/demo_2", h5py.SoftLink("/data/demo_1")), "data/demo_2 is a link to another place")
    spoil("m", _narrow, "observations of demo_1 have 18 numbers, those of demo_0 19")
    (tmp_path / "f").write_bytes(demos.read_bytes()[:5000])
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        read_demonstrations(tmp_path / "f")
    with pytest.raises(DataError, match="no such file"):
        read_demonstrations(tmp_path / "g")


def test_what_cannot_be_fetched_is_said_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="cannot be fetched from here"):
        fetch("lift", tmp_path / "low_dim.hdf5", (tmp_path / "absent-{task}.hdf5").as_uri())
    assert not any(tmp_path.iterdir())


def test_what_is_fetched_is_checked_to_be_a_data_set(demos, tmp_path):
    fetch("lift", tmp_path / "ph" / "low_dim.hdf5", demos.as_uri())
    assert read_demonstrations(tmp_path / "ph" / "low_dim.hdf5").names[0] == "demo_0"
    with pytest.raises(DataError, match="demonstrations of the task 'lift', not of 'can'"):
        fetch("can", tmp_path / "other.hdf5", demos.as_uri())
    (tmp_path / "page.html").write_text("moved")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        fetch("lift", tmp_path / "other.hdf5", (tmp_path / "page.html").as_uri())
    assert not (tmp_path / "other.hdf5").exists()


def test_a_download_that_the_network_refuses_is_said_in_one_line(tmp_path):
    """Nobody listens at port 9 of this machine."""
    url = "http://localhost:9/v1.5/{task}/ph/low_dim_v15.hdf5"
    done = run_command("-m", "dsrl.collect_demos", "--download", "--datasets", tmp_path / "datasets", "--url", url)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "low_dim_v15.hdf5: cannot be fetched from here (" in done.stderr
    assert f"put the file at {tmp_path}/datasets/lift/ph/low_dim_v15.hdf5 by hand" in done.stderr
    assert not list(tmp_path.rglob("*.hdf5*"))


def test_what_is_fetched_has_the_name_of_its_version(demos, tmp_path):
    (tmp_path / "lift").mkdir()
    for name in ("low_dim_v141.hdf5", "low_dim_v15.hdf5"):
        shutil.copy(demos, tmp_path / "lift" / name)
        call(main, tasks=("lift",), datasets=tmp_path / "to", download=True, url=f"{tmp_path.as_uri()}/{{task}}/{name}")
    assert {path.name for path in (tmp_path / "to/lift/ph").iterdir()} == {"low_dim_v141.hdf5", "low_dim_v15.hdf5"}


def test_actions_that_are_not_changes_of_the_pose_are_refused_wherever_data_is_read(demos, tmp_path):
    def refused(name, change, match):
        with pytest.raises(DataError, match=match):
            read_demonstrations(_changed(demos, tmp_path / name, change))

    def absolute(file, turns):
        for demo in file["data"].values():
            demo["actions"][:, :3] = demo["obs/robot0_eef_pos"][:] + 0.05 * demo["actions"][:, :3]
            demo["actions"][:, 3:6] = turns
        assert np.abs(file["data/demo_0/actions"][:, :3]).max() < 1.2

    meant = r"expected changes of the hand's pose in \[-1, 1\]; absolute poses are not read"
    refused("turned", lambda f: absolute(f, (3.1, 0.1, 0)), f"demo_0/actions has 3.1 .row 0, number 3., {meant}")
    refused("near", lambda f: absolute(f, 0.2), f"demo_0/actions (are within|has) .*{meant}")
    refused("far", lambda f: f["data/demo_2/actions"].__setitem__((5, 4), -40), f"demo_2/actions has -40 .*{meant}")
    rounded = _changed(demos, tmp_path / "r", lambda f: f["data/demo_2/actions"].__setitem__((5, 4), 1 + 1e-8))
    assert len(read_demonstrations(rounded).names) == 4


def test_absolute_actions_within_the_range_are_seen_by_where_the_hand_is(demos, tmp_path):
    def absolute_and_low(file):
        for demo in file["data"].values():
            demo["obs/robot0_eef_pos"][:, 2] -= 0.5
            demo["actions"][:, :3] = demo["obs/robot0_eef_pos"][:] + 0.05 * demo["actions"][:, :3]

    with pytest.raises(DataError, match=r"demo_0/actions are within 0\.15 of the hand's position, expected changes"):
        read_demonstrations(_changed(demos, tmp_path / "low", absolute_and_low))


def test_absolute_actions_train_nothing(demos, tmp_path):
    path = _changed(demos, tmp_path / "abs.hdf5", lambda f: f["data/demo_0/actions"].__setitem__((0, 3), 3.1))
    done = run_command("-m", "dsrl.train_bc", "--data_path", path, "--save_dir", tmp_path / "bc")
    assert done.returncode == 2 and done.stderr.startswith(f"error: {path}: demo_0/actions has 3.1")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "bc").exists()


def test_a_file_can_be_looked_into(demos):
    done = run_command("-m", "dsrl.inspect_data", "--data_path", demos)
    assert done.returncode == 0, done.stderr
    for part in ("4 demonstrations", "obs/object", "(10,)", "states", "masks: train (4), valid (0)", "can be cloned"):
        assert part in done.stdout


def _narrow_all(file):
    for name in file["data"]:
        _put(file, f"data/{name}/obs/object", file[f"data/{name}/obs/object"][:, 1:])


LACKING = {
    "no env_args": (lambda f: f["data"].attrs.__delitem__("env_args"), "no attribute env_args", "env_args"),
    "no obs": (lambda f: f["data/demo_1"].__delitem__("obs"), "obs/object .*in 3 of 4", "demo_1 has no observations"),
    "no rewards": (lambda f: f["data/demo_1"].__delitem__("rewards"), "rewards .*in 3 of 4", None),
    "no actions": (lambda f: f["data/demo_1"].__delitem__("actions"), "lengths", "demo_1 has no 'actions'"),
    "no states": (lambda f: f["data/demo_1"].__delitem__("states"), "states .*in 3 of 4", None),
    "no masks": (lambda f: f.__delitem__("mask"), "masks: none", None),
    "no data": (lambda f: f.move("data", "date"), "no group 'data'; found date, mask", "no group 'data'"),
    "empty": (lambda f: [f["data"].__delitem__(name) for name in list(f["data"])], "0 demonstrations", "no demonstra"),
    "an array": (lambda f: _put(f, "data/demo_1", np.zeros(3)), r"\(itself\)", "demo_1 is an array"),
    "a single value": (lambda f: _put(f, "data/demo_1/actions", 1.0), "a single value", "holds float64 of shape"),
    "an outer link": (
        lambda f: _put(f, "data/demo_1/obs/object", h5py.ExternalLink("/etc/passwd", "x")),
        "obs/object .*is a link to another place",
        "obs/object is a link to another place",
    ),
    "a narrow object": (_narrow_all, r"obs/object .*\(9,\)", "have 18 numbers, expected 19 for lift"),
    "a mask of others": (lambda f: _put(f, "mask/x", np.array([b"demo_77"])), r"x \(1, of which 1 are not there", None),
    "text in bytes": (
        lambda f: f["data"].attrs.__setitem__("env_args", np.bytes_(b"\xff{")),
        "env_args",
        "not text in UTF-8",
    ),
    "images": (
        lambda f: _put(f, "data/demo_1/obs/front_image", np.zeros((3, 8, 8, 3), np.uint8)),
        r"\(8, 8, 3\)",
        None,
    ),
    "integers": (lambda f: f["data"].attrs.__setitem__("env_args", np.arange(3)), "env_args", "env_args"),
}


def _put(file, name, value):
    if name in file:
        del file[name]
    file[name] = value


@pytest.mark.parametrize("case", LACKING)
def test_a_file_is_listed_whatever_it_lacks_and_said_to_be_of_use_or_not(demos, tmp_path, case):
    change, listed, wanting = LACKING[case]
    text = describe(_changed(demos, tmp_path / "x.hdf5", change))
    assert re.search(listed, text)
    last = text.splitlines()[-1].strip()
    assert last.startswith("can be cloned: lift" if wanting is None else "cannot be cloned: ")
    assert wanting is None or re.search(wanting, last)


def test_what_is_no_hdf5_file_cannot_be_listed(tmp_path):
    (tmp_path / "text").write_text("hello")
    for path, match in ((tmp_path / "text", "not a readable HDF5 file"), (tmp_path / "none", "no such data file")):
        with pytest.raises(DataError, match=match):
            describe(path)


def test_files_are_read_where_they_cannot_be_locked(demos):
    """While another process holds the lock for writing, as on a file system that refuses locks."""
    with demos.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run_command("-m", "dsrl.inspect_data", "--data_path", demos)
    assert done.returncode == 0, done.stderr
