"""Names from outside that become folders and files stay within the folder that they belong to."""

import subprocess
import sys

import pytest

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import find_task_file, task_file
from offline_compositional_rl_datasets.splits import split_file
from pipeline.stages.offline import DatasetConfig
from pipeline.stages.online import run_name
from runtime.errors import ConfigError, TaskError
from runtime.paths import path_part
from tests.conftest import ROOT

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")
BAD = [
    "",
    ".",
    "..",
    "../x",
    "/etc",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    ".hidden",
    "-rf",
    "a ",
    " a",
    "$(id)",
    "`id`",
    "x" * 101,
    "~",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_could_lead_elsewhere_is_refused_wherever_a_path_is_made_of_it(tmp_path, name):
    dataset = DatasetConfig(tmp_path, tmp_path)
    for make in (
        lambda: path_part("--name", name),
        lambda: task_file(tmp_path, name, TASK),
        lambda: find_task_file(tmp_path, name, TASK),
        lambda: split_file(tmp_path, name, 0),
        lambda: run_name(TASK, name, 0),
        lambda: dataset.folder(tmp_path, name, "bc"),
        lambda: dataset.folder(tmp_path, "full", name),
        lambda: DatasetConfig(tmp_path, tmp_path, type=name).folder(tmp_path, "full", "bc"),
    ):
        with pytest.raises(ConfigError, match="expected a name of at most 100 letters"):
            make()
    with pytest.raises(TaskError):
        CompoSuiteTask.parse(name)


@pytest.mark.parametrize(
    "name", ["expert", "medium-replay-subsampled", "RLPD_14", "lr=3e-4,seed=1", "my run", "v1.5+x@y"]
)
def test_usual_names_are_taken(tmp_path, name):
    assert path_part("--name", name) == name
    assert task_file(tmp_path, name, TASK).is_relative_to(tmp_path)


def test_a_command_with_such_a_name_says_so_and_writes_nothing(tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "scripts.cleanrl_sac_original_taskIDenabled", "--exp_name", "../../escaped",
            "--runs_path", str(tmp_path / "runs"), "--total_timesteps", "10",
        ],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: exp_name '../../escaped': expected a name"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
