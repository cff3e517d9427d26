"""Machines that lack what is usually there: a home, a name, a folder to write to."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from envs import compiled
from runtime import trackers
from tests.conftest import ROOT

NO_NAME = 12345


def _run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache path and a temporary folder of the test's own; numba's setting is put back."""
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(compiled, "machine_settings", lambda: type("Settings", (), {"cache_path": cache}))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return cache, temporary


def test_compiled_functions_are_kept_below_the_cache_path_else_in_an_own_temporary_folder(places):
    cache, temporary = places
    assert compiled.cache_folder() == cache / "numba"
    (cache / "numba").rmdir()
    cache.rmdir()
    cache.write_text("a file in its place")
    folder = compiled.cache_folder()
    assert folder == temporary / f"icdg-numba-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert compiled.cache_folder() == folder


def test_a_temporary_folder_in_which_others_may_have_put_something_is_not_used(places):
    cache, temporary = places
    cache.write_text("a file in its place")
    own = temporary / f"icdg-numba-{os.getuid()}"
    own.mkdir(0o777)
    own.chmod(0o777)
    assert compiled.cache_folder() is None
    own.rmdir()
    (temporary / "elsewhere").mkdir(0o700)
    own.symlink_to(temporary / "elsewhere")
    assert compiled.cache_folder() is None


def test_functions_are_compiled_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").touch()
    code = (
        "import envs, tempfile; tempfile.tempdir = '/proc'\n"
        "from envs.compiled import compiled\n"
        "from envs.composuite import substeps\n"
        "double = compiled(lambda x: 2 * x)\n"
        "print(double(3))"
    )
    done = _run(code, ICDG_CACHE_PATH=str(tmp_path / "file"))
    assert (done.returncode, done.stdout.strip()) == (0, "6"), done.stderr


def test_functions_are_compiled_where_the_disk_fills_while_one_is_kept(tmp_path):
    """Files of 100 bytes may be written, which the folder's probe passes and a function's code does not."""
    (tmp_path / "doubling.py").write_text(
        "from envs.compiled import compiled\n\n\n@compiled\ndef double(x):\n    return 2 * x\n"
    )
    code = (
        "import resource, sys\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "sys.dont_write_bytecode = True\n"
        "from doubling import double\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "print(double(3), double(1.5))\n"
    )
    done = _run(code, ICDG_CACHE_PATH=str(tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, "6 3.0"), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("a compiled function is not kept (") == 1
    assert not [path for path in tmp_path.rglob("*") if ".tmp." in path.name]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a process as a user without a name")
def test_a_user_without_name_and_home_tracks_offline(tmp_path):
    code = (
        "import os, runtime.trackers as trackers\n"  # as root, where nobody else may look into its folders
        "from pathlib import Path\n"
        f"os.setgid({NO_NAME}); os.setuid({NO_NAME})\n"
        "print(trackers.wandb_mode())\n"
        "trackers.ensure_home(Path('/tmp'))\n"
        "print(Path.home())"
    )
    done = _run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["offline", "/tmp"]


def test_a_home_that_is_there_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    trackers.ensure_home(tmp_path)
    assert Path.home() == tmp_path / "mine"


def test_pictures_leave_no_traceback_at_exit():
    """An environment that drew and was not closed, as in a script that just ends."""
    code = (
        "import envs\n"
        "environment = envs.make('IIWA_Box_None_Push', render_mode='rgb_array')\n"
        "environment.reset(seed=0)\n"
        "try:\n"
        "    print(environment.render().shape)\n"
        "except envs.render.RenderError:\n"
        "    print('no off-screen OpenGL here')\n"
        "keep = [environment]\n"
    )
    done = _run(code, **{name: os.environ[name] for name in ("ICDG_CACHE_PATH",) if name in os.environ})
    if "no off-screen" in done.stdout:
        pytest.skip("needs off-screen OpenGL")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "(256, 256, 3)"
