"""A sweep of online runs as jobs: tables, resume, what is missing."""

import csv
from pathlib import Path

import numpy as np
import pytest

from corl.online import HISTORY_COLUMNS, HISTORY_FILE
from corl.online_config import OnlineConfig
from offline_compositional_rl_datasets.task import Task
from pipeline.online import LearnOnline
from pipeline.online_entry import VARIANTS
from pipeline.sweep import HISTORIES_FILE, RESULTS_FILE, steps_to_solve, write_tables
from pipeline.sweep_entry import sweep_command
from runtime.cli import parse_flags
from runtime.errors import ConfigError
from runtime.metrics import write_csv

TASKS = [Task.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Box_None_Trashcan")]


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _stages(root, seeds=(0, 1)):
    return [
        LearnOnline(task, OnlineConfig(), seed, root / f"{task.name}_{seed}", device="cpu")
        for task in TASKS
        for seed in seeds
    ]


def _write_history(folder, successes):
    rows = []
    for i, success in enumerate(successes):
        values = ((i + 1) * 100, 50.0 + i, success, 60.0, max(successes[: i + 1]), int(10 * success), 10, 0.5, 1.0)
        rows.append(dict(zip(HISTORY_COLUMNS, values, strict=True)))
    write_csv(folder / HISTORY_FILE, HISTORY_COLUMNS, rows)


def test_the_tables_hold_last_and_best_success_and_when_a_task_was_solved(tmp_path):
    stages = _stages(tmp_path)
    _write_history(stages[0].folder, [0.0, 0.9, 0.6])
    _write_history(stages[1].folder, [0.0, 0.2])
    write_tables(stages, tmp_path / "out")
    first, second, overall = _rows(tmp_path / "out" / RESULTS_FILE)
    assert (first["success_seed0"], first["best_success_seed0"], first["steps_to_solve_seed0"]) == ("0.6", "0.9", "200")
    assert (first["success_seed1"], first["steps_to_solve_seed1"]) == ("0.2", "")
    assert float(first["avg_success"]) == pytest.approx(0.4)
    assert second["avg_success"] == ""  # no run of it has been evaluated
    assert float(overall["avg_best_success"]) == pytest.approx(0.55)
    histories = _rows(tmp_path / "out" / HISTORIES_FILE)
    assert [(row["seed"], row["global_step"]) for row in histories] == [
        ("0", "100"), ("0", "200"), ("0", "300"), ("1", "100"), ("1", "200"),
    ]  # fmt: skip
    assert steps_to_solve([]) is None


def test_a_sweep_runs_its_jobs_once_and_collects_them(tmp_path):
    small = "{learning_starts: 8, env_horizon: 4, n_eval_episodes: 1, sac: {batch_size: 8, hidden: [8, 8]}}"
    Path(tmp_path / "c.yaml").write_text(small)
    flags = f"--config {tmp_path / 'c.yaml'} --total_timesteps 12 --seeds 0 --tasks {TASKS[0]} --cluster local "
    flags += f"--cpus 1 --no-cuda --runs_path {tmp_path / 'runs'} --results_path {tmp_path} --logs_path {tmp_path}"
    main = sweep_command(VARIANTS["original"], "target")
    parse_flags(main, flags.split())
    rows = _rows(tmp_path / "sac_exp" / "target" / RESULTS_FILE)
    assert [row["task"] for row in rows] == [TASKS[0].name, "OVERALL_AVERAGE"]
    result = next((tmp_path / "runs").glob("*/result.json"))
    before = result.stat().st_mtime_ns
    parse_flags(main, flags.split())
    assert result.stat().st_mtime_ns == before
    assert np.isfinite(float(rows[0]["score_seed0"]))


def test_what_a_sweep_lacks_is_said_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="base_synthetic_data_path"):
        parse_flags(sweep_command(VARIANTS["rlpd_synthdata"], "x"), [])
    original = sweep_command(VARIANTS["original"], "x")
    for flags, message in (
        (["--seeds"], "--seeds nothing: expected one or more"),
        (["--seeds", "1", "1"], "--seeds 1, 1: expected one or more, none of them twice"),
        (["--tasks", *2 * [TASKS[0].name]], "--tasks .*: expected one or more, none of them twice"),
        (["--time", "inf"], "hours=inf.*: expected memory and hours above 0"),
        (["--max_retries", "-1"], "max_retries -1"),
        (["--retry_delay", "nan"], "retry_delay nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_flags(original, flags)
    with pytest.raises(ConfigError, match="--num_train 0: expected 1 to"):
        parse_flags(sweep_command(VARIANTS["rlpd_14realdata"], "x"), ["--num_train", "0"])
