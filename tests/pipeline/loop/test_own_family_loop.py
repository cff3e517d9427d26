"""The loop's own commands on a task family of one's own: run, killed and resumed, looked at, exported, refused."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from envs.family import find_family
from examples.arm_family import ArmTask
from offline_compositional_rl_datasets.export import TRANSITIONS_FILE, read_flat
from pipeline.loop.run import open_run
from runtime.errors import DataError
from scripts.export_data import main as export_data
from tests.conftest import ROOT

LOOP = ["-u", "-m", "scripts.automated_iterative_diffusion_dits_iiwa"]
PLACE, ARM = "examples.point_family:FAMILY", "examples.arm_family:FAMILY"
RUN = "dit_tasklist0_train2_diffusionseed0"
SPLITS = {
    "point": {"train": ["light west calm", "heavy east breeze"], "test": ["light east breeze"]},
    "arm": {"train": ["even empty left calm", "long loaded right wind"], "test": ["long empty left wind"]},
}


def _prepare(folder, example="point", /, **changes):
    """The example's configuration with two tasks to learn from, one held out, and hardly any training."""
    config = yaml.safe_load((ROOT / "examples" / f"{example}_family.yaml").read_text())
    config |= {"experiment_type": "tiny", "num_train": 2, "max_iterations": 1, "success_threshold": 0.0}
    config |= {"min_threshold": 0.0, "sampling": {"solver": "dpmpp_2m", "steps": 4, "num_samples": 200}}
    config["collect"] |= {"episodes": 2}
    config["training"] |= {"steps": 40, "checkpoint_seconds": 0.1}
    config["policy"] = {"max_timesteps": 40, "batch_size": 16, "eval_freq": 20, "n_episodes": 2, "horizon": 10}
    config["paths"] = {"splits_path": str(folder / "splits"), "data_path": str(folder / "data")}
    config["paths"] |= {"results_path": str(folder / "results"), "logs_path": str(folder / "logs")}
    (folder / "splits" / "tiny").mkdir(parents=True)
    split = {part: [task.split() for task in tasks] for part, tasks in SPLITS[example].items()}
    (folder / "splits" / "tiny" / "split_0.json").write_text(json.dumps(split))
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config | changes))
    return file


def _run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def _tables(folder):
    return {path.name: path.read_text() for path in (folder / "logs" / "policies_slurm_logs").rglob("*.csv")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = _run(*LOOP, "--config", _prepare(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_loop_carries_another_family_to_its_tables_and_page(finished):
    run = open_run(finished / "results" / "loops" / RUN, family=PLACE)
    assert run.state.outcome and [task.name for task in run.tasks.test] == ["light_east_breeze"]
    assert set(run.state.iterations[0].scores) == {run.family.parse("light_east_breeze")}
    scores = next(text for name, text in _tables(finished).items() if name.endswith("diffusiontrainingrun0.csv"))
    assert scores.startswith("body,place,wind,score_seed0"), "tables have the family's axes"
    page = (run.folder / "report.html").read_text()
    assert "<h3>breeze</h3>" in page and "<h3>calm</h3>" in page, "a grid per element of the third axis"
    assert "<th>light</th>" in page.replace("\n", "") and "west" in page


def test_a_loop_on_another_family_killed_twice_ends_with_the_same_tables(finished, tmp_path):
    config = _prepare(tmp_path)
    for moment in ("iteration 0: train the generator", "iteration 0: train and test policies"):
        command = [sys.executable, *LOOP, "--config", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seen = any(re.search(moment, line) for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert seen, f"the loop never came to {moment!r}"
    last = _run(*LOOP, "--config", config)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "continuing in iteration 0" in last.stdout
    assert _tables(tmp_path) == _tables(finished)


def test_commands_that_open_a_run_import_its_family_only_where_they_are_told_its_place(finished):
    folder = finished / "results" / "loops" / RUN
    with pytest.raises(DataError, match=rf"a run of the family {PLACE}, expected it to be named here too, --family"):
        open_run(folder)
    refused = _run("-m", "scripts.status", "--results_path", finished / "results")
    assert refused.returncode and "--family examples.point_family:FAMILY" in refused.stderr
    told = _run("-m", "scripts.status", "--results_path", finished / "results", "--family", PLACE)
    assert told.returncode == 0 and "held out" in told.stdout


def test_a_generated_set_of_another_family_is_exported_and_read_back(finished, tmp_path):
    folder = finished / "results" / "loops" / RUN
    told = _run("-m", "scripts.export_data", "--out", tmp_path / "out", "--run", folder, "--family", PLACE)
    assert told.returncode == 0, told.stderr
    path = tmp_path / "out" / "transitions" / "light_east_breeze" / "generated-v0" / "transitions.hdf5"
    family = find_family(PLACE)
    back = read_flat(path, family.task_class)
    assert (len(back), back.task) == (200, family.parse("light_east_breeze"))


def test_the_arm_runs_to_its_end_with_state_page_and_exports(tmp_path):
    result = _run(*LOOP, "--config", _prepare(tmp_path, "arm"))
    assert result.returncode == 0, result.stdout + result.stderr
    family, folder = find_family(ARM), tmp_path / "results" / "loops" / RUN
    task, shown = family.parse("long_empty_left_wind"), family.parse("even_empty_left_calm")
    run = open_run(folder, family=ARM)
    assert run.state.outcome and run.state.current is None, "it came to its end"
    assert [score.trials for score in run.state.iterations[0].scores[task].values()] == [2]
    page = (folder / "report.html").read_text()
    assert "<th>long</th>" in page.replace("\n", "") and str(task) in page
    export_data(tmp_path / "out", run=folder, family=ARM)
    assert (
        len(read_flat(tmp_path / "out" / "transitions" / task.name / "generated-v0" / TRANSITIONS_FILE, ArmTask)) == 200
    )
    export_data(tmp_path / "out", tasks=(shown.name,), data_path=tmp_path / "data", format="lerobot", family=ARM)
    info = json.loads((tmp_path / "out" / "lerobot" / "arm_expert" / "meta" / "info.json").read_text())
    assert (info["fps"], info["total_episodes"]) == (20, 2), "the environments say their rate"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "examples.point_famili:FAMILY"}, "cannot be imported, ModuleNotFoundError"),
        ({"family": "point"}, "family 'point': expected composuite or a place such as"),
        ({"experiment_type": "none"}, "no such split file"),
    ],
)
def test_a_wrong_family_or_split_ends_in_a_line(changes, message, tmp_path):
    result = _run(*LOOP, "--config", _prepare(tmp_path, **changes))
    assert result.returncode and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()
