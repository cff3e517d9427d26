"""The real commands on the smallest configuration, run whole, killed and resumed, and fed with bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.samples import read_samples
from pipeline.loop.state_file import load_state
from tests.conftest import ROOT

LOOP = ["-u", "-m", "scripts.automated_iterative_diffusion_dits_iiwa"]
TINY = ["--config", "tests/tiny.yaml"]
RUN = "dit_tasklist0_train2_diffusionseed0"
TEST_TASKS = ["IIWA_Box_None_PickPlace", "IIWA_Box_ObjectWall_Push"]


def _environment(folder):
    return {
        **os.environ,
        "ICDG_DATA_PATH": str(folder / "data"),
        "ICDG_RESULTS_PATH": str(folder / "results"),
        "ICDG_LOGS_PATH": str(folder / "logs"),
        "OMP_NUM_THREADS": "1",
    }


def _run(arguments, folder):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=_environment(folder), capture_output=True, text=True, timeout=600)


def _csv_files(folder):
    """Contents by name; what a killed process had begun to write has a name of its own, with a dot before it."""
    return {path.name: path.read_text() for path in folder.rglob("[!.]*.csv")}


def _tables(folder):
    """All CSV tables of a run by name, and the scores in its state."""
    tables = _csv_files(folder / "logs" / "policies_slurm_logs")
    state = load_state(folder / "results" / "loops" / RUN / "state.json", CompoSuiteTask.parse)
    return tables, [it.scores for it in state.iterations]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run from nothing to its end, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    result = _run([*LOOP, *TINY], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, result.stdout


def test_the_loop_runs_from_nothing_and_ends_with_its_tables(finished):
    folder, output = finished
    assert "held-out tasks, success per iteration (2 iterations done)" in output
    assert re.search(r"^\S+ \S+  iteration 1: train the generator", output, re.MULTILINE), "lines carry a time stamp"
    tables, _ = _tables(folder)
    assert set(tables) == {
        "td3bc_diffusionseed0_diffusiontrainingrun0.csv",
        "td3bc_diffusionseed0_diffusiontrainingrun1.csv",
        "td3bc_diffusionseed0_diffusiontraining0_middle.csv",
        "td3bc_diffusionseed0_diffusiontraining1_middle.csv",
        "test_tasks_history_iter0.csv",
        "test_tasks_history_iter1.csv",
        "final_test_task_table_iter1.csv",
        "scores.csv",
    }
    final = tables["final_test_task_table_iter1.csv"].splitlines()
    assert final[0] == "task,iter_0,iter_1,best_rate"
    assert [line.split(",")[0] for line in final[1:]] == [*TEST_TASKS, "AVERAGE_BEST_RATE"]
    scores = list(csv.DictReader(tables["scores.csv"].splitlines()))
    assert {row["method"] for row in scores} == {"loop", "loop middle"}
    for line in final[1:-1]:
        task, *rates, _ = line.split(",")
        for iteration, rate in enumerate(rates):
            rows = [
                row for row in scores if (row["task"], row["method"], row["step"]) == (task, "loop", f"{iteration}")
            ]
            found = np.mean([int(row["solved"]) / int(row["trials"]) for row in rows]) if rows else ""
            assert rate == "" == found or float(rate) == pytest.approx(found, abs=1e-4)


def test_files_are_where_users_of_the_published_code_expect_them(finished):
    results = finished[0] / "results"
    for i in (0, 1):
        model = results / f"augmented_{i}" / "diffusion" / f"{RUN}_{i}"
        assert (model / "model-40.pt").exists()
        for name in TEST_TASKS:
            assert len(read_samples(model / name / "samples_0.npz", CompoSuiteTask.parse(name), COMPOSUITE)) == 200
            policy = results / f"augmented_{i}" / "policies" / f"{RUN}_{i}" / f"{name}_RLseed1"
            assert (policy / "td3_bc_policy_model_best_successrate.pt").exists()
    best = results / "best_testtask_dataset" / f"{RUN}_iters1"
    summary = json.loads((best / "best_dataset_summary.json").read_text())
    assert summary["successfully_copied"] == 2
    assert set(summary["best_iterations"]) == set(TEST_TASKS)
    page = (results / "loops" / RUN / "report.html").read_text()
    assert "Held-out tasks" in page
    assert "http" not in page.replace("http-equiv", ""), "the page needs no network"


def test_the_policy_and_generation_scripts_continue_where_the_loop_left_its_files(finished):
    folder, _ = finished
    policy = "-m scripts.train_augmented_policy --num_train 2 --robot IIWA --obj Box --obst None --subtask PickPlace"
    scripts = [
        ["-m", "scripts.train_augmented_diffusion", *TINY, "--num_train", "2", "--experiment_type", "tiny"],
        ["-m", "scripts.generate_augmented_data_dits", *TINY, "--num_train", "2", "--experiment_type", "tiny"],
        [*policy.split(), *TINY],
    ]
    files = {
        path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*") if path.suffix in (".pt", ".npz")
    }
    for script in scripts:
        result = _run(script, folder)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "finished before" in result.stdout
    assert "best evaluation" in result.stdout
    assert files == {path: path.stat().st_mtime_ns for path in files}, "finished work is not done again"


MOMENTS = [
    r"held out; up to",
    r"iteration 0: train the generator",
    r"\[1/3\] generate",
    r"\[2/5\] policy",
    r"iteration 1: generate",
]


def test_a_loop_killed_at_five_moments_ends_with_the_same_tables(finished, tmp_path):
    for moment in MOMENTS:
        command = [sys.executable, *LOOP, *TINY]
        process = subprocess.Popen(command, cwd=ROOT, env=_environment(tmp_path), stdout=subprocess.PIPE, text=True)
        seen = False
        for line in process.stdout:
            if re.search(moment, line):
                seen = True
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert seen, f"the loop never came to {moment!r}"
    last = _run([*LOOP, *TINY], tmp_path)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "continuing in iteration 1" in last.stdout
    assert _tables(tmp_path) == _tables(finished[0])


def _copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_finished_loop_run_again_repeats_nothing(finished):
    folder, _ = finished
    before = _tables(folder)
    result = _run([*LOOP, *TINY], folder)
    assert result.returncode == 0
    assert "train the generator" not in result.stdout
    assert _tables(folder) == before


def test_a_second_loop_on_the_same_results_is_refused(finished, tmp_path):
    from runtime.lease import Lease

    with Lease(finished[0] / "results" / "loops" / RUN / "lock.json"):
        result = _run([*LOOP, *TINY], finished[0])
    assert result.returncode == 2
    assert "another loop is running on this results folder" in result.stderr


def test_two_seeds_side_by_side_on_one_results_root_do_not_touch_each_other(finished, tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, *LOOP, *TINY, "--diffusion_seed", seed],
            **{"cwd": ROOT, "env": _environment(tmp_path), "stdout": subprocess.PIPE, "text": True},
        )
        for seed in ("0", "1")
    ]
    for process in both:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output

    def tables(folder, seed):
        logs = folder / "logs" / "policies_slurm_logs" / f"policies_slurm_diffusionseed{seed}"
        return _csv_files(logs)

    assert tables(tmp_path, 0) == tables(finished[0], 0)
    assert tables(tmp_path, 1).keys() == {name.replace("seed0", "seed1") for name in tables(tmp_path, 0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--success_threshold", "0.9"], "made by another configuration (success_threshold differ"),
        (["--max_iteration", "3"], "unknown flag --max_iteration; did you mean --max_iterations?"),
        (["--max_iterations", "many"], "max_iterations"),
        (["--max_iterations", "0"], "max_iterations 0: expected at least 1"),
        (["--denoiser", "DiT"], "denoiser 'DiT': expected one of dit"),
        (["--num_train", "40"], "num_train 40: the split has 3 train tasks"),
        (["--task_list_seed", "7"], "split_7.json: no such split file"),
        (["--retry_delay", "nan"], "retry_delay nan: expected at least 0"),
        (["--min_threshold", "0.95"], "min_threshold 0.95: expected at most success_threshold"),
    ],
)
def test_a_wrong_flag_ends_in_one_line(finished, arguments, message):
    result = _run([*LOOP, *TINY, *arguments], finished[0])
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stdout + result.stderr


def test_other_data_or_another_split_under_a_begun_run_is_refused(finished, tmp_path):
    folder = _copy(finished, tmp_path)
    data = folder / "data" / "expert-iiwa-offline-comp-data" / "IIWA_Box_None_Push" / "data.hdf5"
    others = _run([*LOOP, *TINY, "--data_path", str(tmp_path / "other")], folder)
    assert others.returncode == 0, "the same data, recorded again elsewhere, are the same data"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    result = _run([*LOOP, *TINY], folder)
    assert result.returncode == 2
    assert "data.hdf5: not the file that" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_tables_of_another_results_folder_are_not_overwritten(finished, tmp_path):
    folder = _copy(finished, tmp_path)
    result = _run([*LOOP, *TINY, "--results_path", str(tmp_path / "elsewhere")], folder)
    assert result.returncode == 2
    assert "holds the tables of another run" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_best_set_outlives_the_files_that_it_was_linked_to(finished, tmp_path):
    folder = _copy(finished, tmp_path)
    for i in (0, 1):
        shutil.rmtree(folder / "results" / f"augmented_{i}" / "diffusion" / f"{RUN}_{i}" / TEST_TASKS[0])
    result = _run([*LOOP, *TINY], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    best = folder / "results" / "best_testtask_dataset" / f"{RUN}_iters1" / TEST_TASKS[0] / "samples_0.npz"
    assert len(read_samples(best, CompoSuiteTask.parse(TEST_TASKS[0]), COMPOSUITE)) == 200


def test_a_wrong_configuration_file_ends_in_one_line(tmp_path):
    (tmp_path / "typo.yaml").write_text("sampling: {num_sample: 5}\n")
    for name, message in (("typo.yaml", "did you mean 'num_samples'?"), ("absent.yaml", "no such configuration file")):
        result = _run([*LOOP, "--config", str(tmp_path / name)], tmp_path)
        assert result.returncode == 2
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_missing_expert_data_ends_in_one_line_before_anything_runs(tmp_path):
    result = _run([*LOOP, "--max_iterations", "1", "--cluster", "local"], tmp_path)
    assert result.returncode == 2
    assert "no expert data of IIWA_Box_ObjectDoor_Trashcan: looked for" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_damaged_sample_file_fails_its_policy_in_one_line(finished, tmp_path):
    folder = _copy(finished, tmp_path)
    task = "IIWA_Box_None_PickPlace"
    model = folder / "results" / "augmented_0" / "diffusion" / f"{RUN}_0"
    samples = model / task / "samples_0.npz"
    samples.write_bytes(samples.read_bytes()[:1000])
    shutil.rmtree(folder / "results" / "augmented_0" / "policies")
    script = "-m scripts.train_augmented_policy --num_train 2 --robot IIWA --obj Box --obst None --subtask PickPlace"
    result = _run([*script.split(), *TINY], folder)
    assert result.returncode == 2
    assert "samples_0.npz: not a readable npz file, perhaps truncated" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    result = _run([*LOOP, *TINY, "--results_path", str(blocked)], tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
