"""What `.ci/run` says where there is no SLURM to test with."""

import os
import shutil
import subprocess

import pytest

from runtime.program import PROJECT_ROOT


@pytest.fixture
def machine(tmp_path):
    """A checkout's folder on a machine without SLURM and apt-get, where everything else passes."""
    for name in ("bash", "id", "dirname", "env"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    (tmp_path / ".ci").mkdir()
    shutil.copy(PROJECT_ROOT / ".ci" / "run", tmp_path / ".ci")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for file, text in ((python, "printf 'not installed: slurmctld'"), (tmp_path / "bin" / "make", "echo make $1")):
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return tmp_path


def _run(machine, **environment):
    around = {"HOME": os.environ["HOME"], "PATH": str(machine / "bin"), **environment}
    return subprocess.run([machine / ".ci" / "run"], env=around, capture_output=True, text=True, timeout=60)


def test_the_continuous_integration_fails_without_slurm_after_all_other_tests(machine):
    ended = _run(machine)
    assert ended.stdout.splitlines() == ["make setup", "make lint", "make test"]
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: tests/slurm was skipped (not installed: slurmctld)")


def test_it_passes_where_it_is_told_to_do_without(machine):
    assert _run(machine, ICDG_SKIP_SLURM="1").returncode == 0


def test_it_passes_where_there_is_one(machine):
    (machine / ".venv" / "bin" / "python").write_text("#!/bin/sh\n")
    assert _run(machine).returncode == 0
