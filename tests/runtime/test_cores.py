"""How many cores a process takes for its own: affinity, quotas of containers, what it is told."""

import subprocess
import sys

import pytest

from runtime.cpus import cpu_count, quota
from runtime.errors import ConfigError


def _group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def _quota(tmp_path, lines):
    (tmp_path / "cgroup").write_text(lines)
    return quota(tmp_path / "cgroup", tmp_path / "fs")


def test_the_smallest_quota_of_the_groups_around_a_process_counts(tmp_path):
    _group(tmp_path / "fs" / "pod" / "box", cpu__max="max 100000\n")
    _group(tmp_path / "fs" / "pod", cpu__max="250000 100000\n")
    assert _quota(tmp_path, "0::/pod/box\n") == 2.5
    assert _quota(tmp_path, "0::/elsewhere\n") == float("inf")


def test_a_container_that_sees_its_own_group_alone_finds_its_quota_at_the_top(tmp_path):
    _group(tmp_path / "fs", cpu__max="150000 100000\n")
    assert _quota(tmp_path, "0::/docker/0123\n") == 1.5


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_the_first_version_count_too(mount, tmp_path):
    _group(tmp_path / "fs" / mount / "job", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    _group(tmp_path / "fs" / mount, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert _quota(tmp_path, "5:memory:/job\n4:cpu,cpuacct:/job\n") == 3.0


def test_files_that_cannot_be_read_limit_nothing(tmp_path):
    _group(tmp_path / "fs", cpu__max="odd\n")
    assert _quota(tmp_path, "0::/\n") == float("inf")
    assert quota(tmp_path / "nothing") == float("inf")


def test_what_the_user_says_overrides_and_is_checked(monkeypatch):
    monkeypatch.setenv("ICDG_CPUS", "3")
    assert cpu_count() == 3
    for value in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("ICDG_CPUS", value)
        with pytest.raises(ConfigError, match=f"ICDG_CPUS {value!r}: expected a whole number"):
            cpu_count()


def test_learners_that_are_not_told_compute_with_no_more_threads_than_that():
    code = "import torch; torch.set_num_threads(4); from runtime.cpus import use_threads; use_threads(0); "
    code += "print(torch.get_num_threads())"
    environment = {"ICDG_CPUS": "2", "PATH": ""}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "2"
