import contextlib
import dataclasses
import errno
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.atomic import artifact_info, atomic_path, commit_artifact, is_complete, read_json, verify, write_json
from runtime.cli import parse_flags
from runtime.config import config_hash, load_yaml, read_yaml, to_dict
from runtime.errors import ConfigError, DataError
from runtime.logs import duration
from runtime.metrics import MetricsWriter, read_metrics
from runtime.paths import machine_settings
from runtime.seeds import derive_seed
from runtime.wandb_sink import use_wandb
from tests.conftest import ROOT


def test_an_interrupted_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_an_artifact_counts_only_with_its_side_file_and_size(tmp_path):
    path = tmp_path / "a.bin"
    commit_artifact(path, lambda p: p.write_bytes(b"12345678"), {"key": "k"})
    assert artifact_info(path) == {"key": "k"}
    path.write_bytes(b"1234")
    assert not is_complete(path)
    path.write_bytes(b"87654321")
    assert is_complete(path)
    with pytest.raises(DataError, match="damaged"):
        verify(path)


def test_a_failed_rewrite_never_leaves_a_side_file_for_other_bytes(tmp_path):
    path = tmp_path / "a.bin"
    commit_artifact(path, lambda p: p.write_bytes(b"old"), {"key": "old"})

    def fail(temporary):
        temporary.write_bytes(b"new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        commit_artifact(path, fail, {"key": "new"})
    assert not is_complete(path)


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Sized:
    size: int
    unit: str = "MB"


@dataclasses.dataclass(frozen=True)
class Outer:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    inner: Inner = dataclasses.field(default_factory=Inner)
    where: Path | None = None
    perhaps: Inner | None = None
    sized: Sized = Sized(size=4)
    order: Literal["up", "down", "none"] = "up"


def _yaml(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "line 1 is a part of itself"),
        ("a: 1\nb: &x {c: {d: *x}}", "line 2 is a part of itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "line 1 is more than 50 levels deep"),
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)),
            "stands for more than",
        ),
        ("a: !!timestamp x", "not a YAML file"),
        ("a: 2024-99-99", "not a YAML file"),
        ("a: !!python/object/apply:os.system ['x']", "not a YAML file"),
    ],
)
def test_yaml_that_refers_to_itself_or_is_too_deep_is_refused(tmp_path, text, message):
    path = _yaml(tmp_path, text)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: {message}"):
        read_yaml(path)


def test_yaml_may_refer_to_values_above(tmp_path):
    assert read_yaml(_yaml(tmp_path, "a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}")) == {
        "a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2},
    }  # fmt: skip


def test_yaml_and_overrides_make_a_dataclass(tmp_path):
    path = _yaml(tmp_path, "rate: 1e-4\nnames: [x, y]\nwhere: a/b\n")
    config = load_yaml(Outer, path, {"inner": {"size": 7}})
    assert config == Outer(1e-4, ("x", "y"), Inner(7), Path("a/b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat: 1", "unknown key 'rat'; did you mean 'rate'"),
        ("inner: {sise: 1}", "unknown key 'inner.sise'; did you mean 'size'"),
        ("inner: 3", "'inner' is 3, expected a mapping"),
        ("perhaps: {sise: 1}", "unknown key 'perhaps.sise'; did you mean 'size'"),
        ("names: ab", "'names' is 'ab', expected a list"),
        ("names: 5", "'names' is 5, expected a list"),
        ("rate: fast", "rate 'fast': expected float"),
        ("inner: {size: yes}", "'inner.size' is True, expected a number"),
        ("rate: off", "'rate' is False, expected a number"),
        ("rate: 1\nrate: 2", "the key 'rate' is given twice"),
        ("inner: {size: 1, size: 1}", "the key 'size' is given twice"),
        ("inner: {size: 1.5}", "inner.size 1.5: expected int"),
        ("order: left", "order 'left': expected up, down or none$"),
        ("- 1", "expected a mapping"),
        ("a: [", "not a YAML file"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path, text, message):
    path = _yaml(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        load_yaml(Outer, path)
    assert str(path) in str(error.value)


def test_a_part_of_a_nested_mapping_keeps_the_defaults_of_the_rest(tmp_path):
    config = load_yaml(Outer, _yaml(tmp_path, "sized: {unit: GB}\nperhaps: null\n"))
    assert config.sized == Sized(size=4, unit="GB")
    assert config.perhaps is None


@given(st.integers(), st.integers())
def test_configurations_hash_equal_only_when_they_are(a, b):
    equal = config_hash(Outer(inner=Inner(a))) == config_hash(Outer(inner=Inner(b)))
    assert equal == (a == b)
    assert config_hash(to_dict(Outer())) == config_hash(Outer())


def test_flags_take_both_dashes_and_underscores():
    def main(max_iterations: int, data_path: Path | None = None) -> tuple:
        return max_iterations, data_path

    assert parse_flags(main, ["--max_iterations", "3"]) == (3, None)
    assert parse_flags(main, ["--max-iterations", "3", "--data-path", "x"]) == (3, Path("x"))
    with pytest.raises(ConfigError, match=r"unknown flag --max_iteration; did you mean --max_iterations\?"):
        parse_flags(main, ["--max_iteration", "3"])
    with pytest.raises(ConfigError, match="max_iterations"):
        parse_flags(main, ["--max_iterations", "three"])
    with pytest.raises(ConfigError, match="max_iterations"):
        parse_flags(main, [])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (False, True, None)),
        (["--track", "--no_tune", "--no_env_check"], (True, False, False)),
        (["--no-track", "--no-tune", "--no-env-check"], (False, False, False)),
        (["--track", "True", "--tune=false", "--env_check"], (True, False, True)),
        (["--track=False", "--tune", "--env-check", "False"], (False, True, False)),
    ],
)
def test_switches_take_their_negation_and_words_with_underscores_and_dashes(flags, expected):
    def main(track: bool = False, tune: bool = True, env_check: bool | None = None, steps: int = 1) -> tuple:
        return track, tune, env_check

    assert parse_flags(main, [*flags, "--steps", "3"]) == expected
    with pytest.raises(ConfigError, match="--env_check 'maybe': expected a switch, --env_check or --no_env_check"):
        parse_flags(main, ["--env_check=maybe"])


WORK = """
import logging, math
from runtime.logs import configure_logging, progress
configure_logging()
with progress(2, "jobs", every_seconds=math.inf) as bar:
    for i in range(2):
        logging.getLogger("work").info("line %d", i)
        bar.update(running=1)
"""


def test_a_terminal_shows_a_bar_below_the_log_and_a_pipe_the_log_alone():
    command = [sys.executable, "-c", WORK]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split("  ")[1] for line in piped.stdout.splitlines()] == ["line 0", "line 1"]
    terminal, end = pty.openpty()
    subprocess.run(command, stdout=end, stderr=end, check=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"})
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to any more
        while part := os.read(terminal, 65536):
            seen += part
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(r"jobs ━+ 2/2 .* running 1", text)
    lines = [row for row in re.split(r"[\r\n]+", text) if "line " in row]
    assert [re.fullmatch(r"[\d: -]+(line \d) *", row)[1] for row in lines] == ["line 0", "line 1"]


@dataclasses.dataclass(frozen=True)
class Shared:
    root_path: Path
    partial: bool = False


def test_flags_that_commands_share_are_the_fields_of_a_parameter():
    def main(shared: Shared, steps: int = 1) -> tuple:
        return shared, steps

    assert parse_flags(main, ["--root-path", "x", "--partial"]) == (Shared(Path("x"), True), 1)
    assert parse_flags(main, ["--steps", "2", "--root_path", "x", "--no-partial"]) == (Shared(Path("x")), 2)
    with pytest.raises(ConfigError, match=r"unknown flag --rot_path; did you mean --root_path\?"):
        parse_flags(main, ["--rot_path", "x"])
    with pytest.raises(ConfigError, match="root_path"):
        parse_flags(main, [])


def test_metrics_resume_drops_later_rows_and_a_half_written_line(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (10, 20, 30):
        writer.log(step=step, loss=1.0)
    with writer.path.open("a") as file:
        file.write('{"step": 4')
    MetricsWriter(tmp_path, resume_from=20).log(step=25, loss=0.5)
    assert [row["step"] for row in read_metrics(writer.path)] == [10, 20, 25]


def test_environment_variables_override_the_machine_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("ICDG_DATA_PATH", str(tmp_path / "elsewhere"))
    machine_settings.cache_clear()
    assert machine_settings().data_path == tmp_path / "elsewhere"
    monkeypatch.setenv("ICDG_TASKS_PATH", str(tmp_path))
    machine_settings.cache_clear()
    with pytest.raises(ConfigError, match=r"ICDG_TASKS_PATH: .* named by --splits_path"):
        machine_settings()
    monkeypatch.undo()
    machine_settings.cache_clear()


@given(st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=4))
def test_derived_seeds_are_stable_and_in_range(parts):
    assert derive_seed(*parts) == derive_seed(*parts)
    assert 0 <= derive_seed(*parts) < 2**31


def test_durations_read_well():
    assert [duration(s) for s in (3, 187, 7500, 360000)] == ["3s", "3m07s", "2h05m", "4d04h"]


def test_an_artifact_interrupted_before_its_renaming_leaves_no_file_without_a_voucher(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    commit_artifact(path, lambda p: p.write_bytes(b"old"), {"key": "old"})
    rename = Path.replace

    def interrupted(self, target):
        if Path(target) == path:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        commit_artifact(path, lambda p: p.write_bytes(b"new"), {"key": "new"})
    assert not path.exists()
    assert not is_complete(path)
    monkeypatch.undo()
    commit_artifact(path, lambda p: p.write_bytes(b"new"), {"key": "new"})
    assert artifact_info(path) == {"key": "new"}


def test_what_a_full_disk_stopped_is_named(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert not any(tmp_path.iterdir())


def test_wandb_is_offline_and_has_what_the_file_has(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("ICDG_WANDB_PROJECT", "")
    monkeypatch.delenv("ICDG_WANDB", raising=False)
    writer = MetricsWriter(tmp_path)
    writer.log(step=1, loss=0.5)
    assert not (tmp_path / "wandb").exists(), "off unless a project is named"
    use_wandb("a-project")
    writer.log(step=2, loss=0.25)
    assert writer.wandb._run.offline
    writer.wandb.close()
    wandb.teardown()  # as at the end of the process: its service has written everything then
    (record,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"loss" in record.read_bytes()
    assert b"0.25" in record.read_bytes()
    assert [row["step"] for row in read_metrics(writer.path)] == [1, 2]


def test_a_failing_wandb_does_not_end_a_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ICDG_WANDB_PROJECT", "a-project")
    writer = MetricsWriter(tmp_path)
    monkeypatch.setattr(writer.wandb, "_start", lambda: 1 / 0)
    writer.log(step=1, loss=0.5)
    writer.log(step=2, loss=0.5)
    assert caplog.text.count("no metrics to W&B") == 1
    assert len(read_metrics(writer.path)) == 2
    monkeypatch.delenv("ICDG_WANDB_PROJECT")
    with pytest.raises(ConfigError, match="expected --wandb_project"):
        use_wandb(None, "online")


def test_a_reader_that_goes_away_ends_a_command_without_a_traceback():
    code = "from runtime.main import run_main; run_main(lambda: [print('x' * 100) for _ in range(100_000)] and None)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
