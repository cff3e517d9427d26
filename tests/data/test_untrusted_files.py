"""Files from anywhere: what they are is said in one line, nothing beside them is read, and no claim is believed."""

import fcntl
import io
import os
import re
import zipfile

import h5py
import numpy as np
import pytest

from offline_compositional_rl_datasets.check import check_task
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import KEYS, read_expert, task_file
from offline_compositional_rl_datasets.samples import read_samples
from runtime.errors import DataError
from runtime.hdf5 import attribute, find, open_hdf5, read

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")
ROWS = 40


@pytest.fixture
def path(tmp_path):
    """A good file of two episodes."""
    path = task_file(tmp_path, "expert", TASK)
    path.parent.mkdir(parents=True)
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        states = random.normal(size=(ROWS, COMPOSUITE.state_dim)).astype(np.float32)
        for part in COMPOSUITE.relative_quaternions:
            states[:, part] = (1, 0, 0, 0)
        file["observations"] = COMPOSUITE.join_ids(states, TASK.one_hot)
        file["actions"] = random.uniform(-1, 1, (ROWS, 8)).astype(np.float32)
        file["rewards"] = random.random(ROWS).astype(np.float32)
        file["successes"], file["terminals"] = np.zeros(ROWS, np.float32), np.zeros(ROWS, bool)
        file["timeouts"] = np.arange(1, ROWS + 1) % 20 == 0
    return path


def _external_link(file, secret):
    file["rewards"] = h5py.ExternalLink(str(secret), "rewards")


def _soft_link(file, secret):
    file["other"] = np.zeros(ROWS, np.float32)
    file["rewards"] = h5py.SoftLink("/other")


def _dangling_link(file, secret):
    file["rewards"] = h5py.SoftLink("/nothing")


def _circular_link(file, secret):
    file["rewards"] = h5py.SoftLink("/rewards")


def _external_storage(file, secret):
    file.create_dataset("rewards", (ROWS,), np.uint8, external=[(str(secret), 0, ROWS)])


def _virtual(file, secret):
    layout = h5py.VirtualLayout((ROWS,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "rewards", (ROWS,))
    file.create_virtual_dataset("rewards", layout)


@pytest.mark.parametrize(
    "disguise", [_external_link, _soft_link, _dangling_link, _circular_link, _external_storage, _virtual]
)
def test_values_from_elsewhere_are_refused_whoever_reads(path, tmp_path, disguise):
    secret = tmp_path / "passwd"
    with h5py.File(secret, "w") as file:
        file["rewards"] = np.zeros(ROWS, np.float32)
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        disguise(file, secret)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: rewards (is a link|has its values in other files)"):
        read_expert(path, TASK)
    assert re.match("rewards (is a link|has its values)", check_task(tmp_path, "expert", TASK).faults[0])


@pytest.mark.parametrize("options", [{}, {"chunks": (1000,)}, {"chunks": (1000,), "compression": "gzip"}])
def test_a_claim_larger_than_the_file_is_refused_before_room_is_made_for_it(path, options):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_dataset("rewards", (10**13,), np.float32, **options)
    with pytest.raises(DataError, match="rewards claims 40,000,000,000,000 bytes, of which the file holds 0"):
        read_expert(path, TASK)


def test_a_chunk_larger_than_its_bytes_can_stand_for_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file.create_dataset("rewards", (ROWS,), "f4", maxshape=(None,), chunks=(10**9,), compression="gzip")
    with pytest.raises(DataError, match="rewards claims 4,000,000,000 bytes in a chunk"):
        read_expert(path, TASK)


def test_highly_compressed_and_never_written_flags_are_believed(path):
    rows = 2_000_000
    with h5py.File(path, "r+") as file:
        file.create_dataset("zeros", data=np.zeros(rows), compression="gzip", compression_opts=9)
        file.create_dataset("unwritten", (rows,), bool)
    with open_hdf5(path) as file:
        assert not read(find(file, "zeros")).any()
        assert not read(find(file, "unwritten")).any()


def test_an_attribute_is_no_larger_than_its_file(path):
    with h5py.File(path, "r+") as file:
        file.attrs["text"] = "abc"
        file.attrs["none"] = h5py.Empty("f4")
    with open_hdf5(path) as file:
        assert attribute(file, "text") == "abc"
        assert attribute(file, "absent") is None
        assert attribute(file, "none").shape is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("actions", np.zeros((ROWS, 8), complex), "actions has dtype complex128, expected numbers"),
        ("rewards", np.zeros(ROWS, [("a", "f4")]), "rewards has dtype"),
        ("rewards", np.array([b"x"] * ROWS), r"rewards has dtype \|S1"),
        ("rewards", ["x"] * ROWS, "rewards has dtype object"),
        ("rewards", np.full(ROWS, 1e300), "rewards has a value that is not finite in row 0"),
        (
            "observations",
            np.full((ROWS, COMPOSUITE.observation_dim), 1e300),
            "observations has a value that is not finite in row 0",
        ),
        ("actions", np.full((ROWS, 8), 1e300), "actions has a value that is not finite in row 0"),
        ("terminals", np.full(ROWS, 0.3), "terminals has 0.3 in row 0, expected 0 or 1"),
        ("timeouts", np.zeros(ROWS, bool), "no row is a terminal or a timeout"),
        ("rewards", np.dtype("f4"), "rewards is a datatype, expected a data set"),
    ],
)
def test_values_of_another_kind_are_named(path, key, value, message):
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = value
    with pytest.raises(DataError, match=message):
        read_expert(path, TASK)


def test_a_type_that_numpy_has_not_is_named(path):
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.UNIX_D32LE.copy(), h5py.h5s.create_simple((ROWS,)))
    with pytest.raises(DataError, match="rewards cannot be read"):
        read_expert(path, TASK)


@pytest.mark.parametrize("value", [-40.0, 1.7, -1.01])
def test_an_action_that_the_check_refuses_is_not_read_either(path, tmp_path, value):
    with h5py.File(path, "r+") as file:
        file["actions"][6, 1] = value
    assert check_task(tmp_path, "expert", TASK).faults == ("row 6: action outside [-1, 1]",)
    with pytest.raises(DataError, match=rf"actions has {value:g} in row 6, expected actions in \[-1, 1\]"):
        read_expert(path, TASK)


def test_a_file_that_is_only_read_needs_no_lock(path):
    """HDF5's lock is refused here as on a file system without locks: somebody else holds it."""
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"), h5py.File(path, "r", locking=True):
            pass
        assert len(read_expert(path, TASK)) == ROWS - 2
        assert check_task(path.parents[2], "expert", TASK).faults == ()


def test_what_is_not_a_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="not a regular file"), open_hdf5(place):
            pass


def test_a_file_with_any_byte_changed_is_read_or_refused(path):
    """Nothing but `DataError` comes of a damaged file."""
    content, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = content.copy()
        for place in random.integers(0, min(len(content), 12_000), size=4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_expert(path, TASK)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 15


def test_every_key_of_a_file_is_looked_at(path):
    for key in KEYS:
        with open_hdf5(path) as file:
            assert isinstance(find(file, key), h5py.Dataset)
            assert find(file, f"{key}/deeper") is None
            assert find(file, f"absent/{key}") is None


def _arrays(**changes):
    random = np.random.default_rng(0)
    arrays = {
        "observations": random.normal(size=(ROWS, 77)).astype(np.float32),
        "actions": random.uniform(-1, 1, (ROWS, 8)).astype(np.float32),
        "rewards": random.random(ROWS).astype(np.float32),
        "next_observations": random.normal(size=(ROWS, 77)).astype(np.float32),
        "terminals": np.zeros(ROWS, np.float32),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((ROWS, 77), bool)}, "observations has dtype bool, expected numbers"),
        ({"actions": np.zeros((ROWS, 8), complex)}, "actions has dtype complex128, expected numbers"),
        ({"rewards": np.array(["x"] * ROWS)}, "rewards has dtype <U1, expected numbers"),
        ({"rewards": np.array([b"x"] * ROWS)}, r"rewards has dtype \|S1, expected numbers"),
        ({"rewards": np.zeros(ROWS, [("a", "f4")])}, "rewards has dtype"),
        ({"rewards": np.array([{}] * ROWS)}, "rewards has dtype object"),
        ({"rewards": np.zeros(ROWS, "datetime64[s]")}, "rewards has dtype datetime64"),
        ({"rewards": np.float32(1)}, r"rewards has shape \(\), expected"),
        ({"rewards": np.zeros((ROWS, 1))}, r"rewards has shape \(40, 1\), expected \(40,\)"),
        ({"rewards": np.full(ROWS, 1e300)}, "rewards has a value that is not finite in row 0"),
        ({"observations": np.float32(1)}, "terminals has shape"),
        ({"observations": np.zeros((0, 77))}, "terminals has shape"),
        ({"terminals": np.zeros((ROWS, 1))}, r"terminals has shape \(40, 1\), expected \(40,\)"),
    ],
)
def test_samples_of_another_kind_are_named(tmp_path, changes, message):
    path = tmp_path / "samples_0.npz"
    np.savez_compressed(path, **_arrays(**changes))
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {message}"):
        read_samples(path, TASK, COMPOSUITE)


@pytest.mark.parametrize("kind", [bool, np.int8, np.float64, np.float16])
def test_samples_of_another_type_of_number_are_read_as_float32(tmp_path, kind):
    path = tmp_path / "samples_0.npz"
    terminals = (np.arange(ROWS) % 2).astype(kind)
    np.savez(path, **_arrays(terminals=terminals, rewards=np.arange(ROWS, dtype=np.float64)))
    samples = read_samples(path, TASK, COMPOSUITE)
    assert samples.terminals.tolist() == [False, True] * (ROWS // 2)
    assert samples.rewards.dtype == np.float32
    assert samples.rewards.tolist() == list(range(ROWS))


def _archive(path, member, content, **options):
    """Good samples but for one member, which holds these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in _arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{key}.npy", content if key == member else buffer.getvalue(), **options)


def _npy(header):
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,)}"), "rewards claims the shape"),
        (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "rewards claims the shape"),
        (
            _npy("{'descr': '|O', 'fortran_order': False, 'shape': (40,)}") + b"cos\nsystem\n",
            "rewards has dtype object",
        ),
        (_npy("(" * 5000), "rewards is not an array"),
        (_npy("-" * 9000 + "1"), "rewards is not an array"),
        (_npy("nothing of the kind"), "rewards is not an array"),
        (b"\x93NUMPY\x03\x00\x00", "rewards is an array of format"),
        (b"1, 2, 3", "rewards is not an array"),
        (b"", "rewards is not an array"),
    ],
)
def test_an_array_that_is_none_or_claims_too_much_is_named(tmp_path, content, message):
    path = tmp_path / "samples_0.npz"
    _archive(path, "rewards", content)
    with pytest.raises(DataError, match=message):
        read_samples(path, TASK, COMPOSUITE)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_than_deflate_are_named(tmp_path, method):
    path = tmp_path / "samples_0.npz"
    _archive(path, None, b"", compress_type=method)
    with pytest.raises(DataError, match=f"is compressed by method {method}, expected deflate or none"):
        read_samples(path, TASK, COMPOSUITE)


@pytest.mark.parametrize(
    ("offset", "value", "message"), [(6, 1, "is encrypted"), (8, 97, "is compressed by method 97")]
)
def test_encryption_and_unknown_compressions_are_named(tmp_path, offset, value, message):
    path = tmp_path / "samples_0.npz"
    _archive(path, None, b"")
    content = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):  # a member's own header, the directory's entry
        place = content.find(signature)
        while place >= 0:
            content[place + offset + shift] = value
            place = content.find(signature, place + 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_samples(path, TASK, COMPOSUITE)


def test_an_archive_with_any_byte_changed_is_read_or_refused(tmp_path):
    path = tmp_path / "samples_0.npz"
    np.savez_compressed(path, **_arrays())
    content, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    for i in range(150):
        damaged = content.copy()
        end = random.integers(len(content)) if i % 3 == 0 else len(content)
        for place in random.integers(0, len(content), size=4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[:end])
        try:
            read_samples(path, TASK, COMPOSUITE)
        except DataError as error:
            assert str(path) in str(error)
