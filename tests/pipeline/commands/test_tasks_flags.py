"""Commands about tasks alone, for a family that is not CompoSuite."""

import imageio.v3 as imageio
import pytest

from envs.recording import CollectConfig
from offline_compositional_rl_datasets.hdf5 import task_file
from pipeline.commands.tasks_flags import TasksFlags
from runtime.atomic import read_json
from runtime.cli import parse_flags
from runtime.errors import ConfigError
from scripts import check_data, collect_expert_data, evaluate_experts, render_task
from scripts.collect_expert_data import RecordingFlags

ARM = "examples.arm_family:FAMILY"
FAMILY = ["--family", ARM]


@pytest.fixture(scope="module")
def task():
    return TasksFlags(all_tasks=True, family=ARM).chosen()[0]


def test_tasks_are_named_in_one_way():
    assert len(TasksFlags(robot="IIWA").chosen()) == 64
    assert len(TasksFlags(all_tasks=True).chosen()) == 256
    for flags in (TasksFlags(), TasksFlags(("x",), "IIWA"), TasksFlags(robot="IIWA", all_tasks=True)):
        with pytest.raises(ConfigError, match="expected one of --tasks, --robot and --all_tasks"):
            flags.chosen()


def test_flags_of_recording_have_its_own_defaults():
    assert RecordingFlags().config() == CollectConfig()


def test_experts_of_an_own_family_are_recorded_checked_and_scored(task, tmp_path, capsys):
    one, data = [*FAMILY, "--tasks", task.name], ["--data_path", str(tmp_path)]
    runs = ["--episodes", "2", "--horizon", "60", "--workers", "1"]
    parse_flags(collect_expert_data.main, [*one, *data, *runs])
    assert task_file(tmp_path, "expert", task).exists()
    assert parse_flags(check_data.main, [*one, *data]) in (0, 1)
    assert "0 missing" in capsys.readouterr().out
    json = ["--json", str(tmp_path / "scores.json")]
    parse_flags(evaluate_experts.main, [*one, "--episodes", "2", "--workers", "1", *json])
    (score,) = read_json(tmp_path / "scores.json")
    assert (score["task"], score["episodes"]) == (task.name, 2)


def test_an_own_family_is_filmed_and_drawn(task, tmp_path):
    parse_flags(render_task.main, [*FAMILY, "--task", task.name, "--out", str(tmp_path / "a.gif"), "--horizon", "4"])
    assert len(imageio.imread(tmp_path / "a.gif")) == 3
    two = [each.name for each in TasksFlags(all_tasks=True, family=ARM).chosen()[:2]]
    parse_flags(render_task.main, [*FAMILY, "--tasks", *two, "--out", str(tmp_path / "b.png")])
    height, width, _ = imageio.imread(tmp_path / "b.png").shape
    assert width == 8 * 220 and height > 165
    with pytest.raises(ConfigError, match="--policies: published policies are of CompoSuite's tasks"):
        parse_flags(collect_expert_data.main, [*FAMILY, "--task", task.name, "--policies", str(tmp_path)])
