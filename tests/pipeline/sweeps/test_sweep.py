"""A sweep of online runs as jobs: tables, resume, what is missing."""

import csv
from pathlib import Path

import numpy as np
import pytest

from corl.online import HISTORY_COLUMNS, HISTORY_FILE
from corl.online_config import OnlineConfig
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from pipeline.commands.baseline import baseline_command
from pipeline.commands.job_flags import ClusterFlags
from pipeline.commands.online import VARIANTS
from pipeline.commands.sweep import sweep_command
from pipeline.loop.config import ClusterConfig
from pipeline.stages.online import LearnOnline
from pipeline.stages.score_table import SCORES_FILE, read_score_table
from pipeline.sweeps.online import RESULTS_FILE, write_online_table
from pipeline.sweeps.ownership import owned
from runtime.cli import parse_flags
from runtime.errors import ConfigError, StateError
from runtime.tables import write_csv

TASKS = [CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Box_None_Trashcan")]


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
    rows = [row for stage in stages for row in stage.score_rows()]
    write_online_table(rows, tmp_path / "out")
    first, overall = _rows(tmp_path / "out" / RESULTS_FILE)
    assert (first["success_seed0"], first["best_success_seed0"], first["steps_to_solve_seed0"]) == ("0.6", "0.9", "200")
    assert (first["success_seed1"], first["steps_to_solve_seed1"]) == ("0.2", "")
    assert float(first["avg_success"]) == pytest.approx(0.4)
    assert float(overall["avg_best_success"]) == pytest.approx(0.55)
    assert [(row.seed, row.step, row.solved) for row in rows] == [
        (0, 100, 0), (0, 200, 9), (0, 300, 6), (1, 100, 0), (1, 200, 2),
    ]  # fmt: skip


def test_a_sweep_runs_its_jobs_once_and_collects_them(tmp_path):
    small = "{learning_starts: 8, horizon: 4, n_episodes: 1, batch_size: 8, sac: {hidden_dims: [8, 8]}}"
    Path(tmp_path / "c.yaml").write_text(small)
    flags = f"--config {tmp_path / 'c.yaml'} --total_timesteps 12 --seeds 0 --tasks {TASKS[0]} --cluster local "
    flags += f"--cpus 1 --no-cuda --runs_path {tmp_path / 'runs'} --results_path {tmp_path} --logs_path {tmp_path}"
    main = sweep_command(VARIANTS["original"], "target")
    parse_flags(main, flags.split())
    rows = _rows(tmp_path / "sac_exp" / "target" / RESULTS_FILE)
    assert [row["task"] for row in rows] == [TASKS[0].name, "OVERALL_AVERAGE"]
    result = next((tmp_path / "runs").glob("*/result.json"))
    scores = read_score_table(tmp_path / "sac_exp" / "target" / SCORES_FILE)
    assert [(row.method, row.seed, row.step) for row in scores] == [(VARIANTS["original"].exp_name, 0, 12)]
    assert read_score_table(result.with_name(SCORES_FILE)) == scores
    before = result.stat().st_mtime_ns
    parse_flags(main, flags.split())
    assert result.stat().st_mtime_ns == before
    assert np.isfinite(float(rows[0]["score_seed0"]))
    with pytest.raises(
        StateError, match=r"run\.json: made with other settings \(config differ.*choose another --results"
    ):
        parse_flags(main, [*flags.split(), "--eval_freq", "6"])
    assert _rows(tmp_path / "sac_exp" / "target" / RESULTS_FILE) == rows


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


def test_a_results_folder_is_one_commands_and_one_settings(tmp_path, caplog):
    folder, settings = tmp_path / "sac", {"config": {"gamma": 0.9, "sizes": (8, 8)}}
    other = r"another command is running .*process \d+ on"
    with owned(folder, settings, ["a", "b"]), pytest.raises(StateError, match=other), owned(folder, {}, []):
        pass
    other = r"run\.json: made with other settings \(config differ: config was"
    with pytest.raises(StateError, match=other), owned(folder, {"config": {"gamma": 0.8}}, ["a"]):
        pass
    with owned(folder, settings, ["a", "c"]):
        assert "1 runs that this command does not name are left out of the tables: b" in caplog.text
    for content in ('{"half', "[1]", '{"settings": 3}', "\xff"):
        (folder / "run.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(StateError, match=r"run\.json: .*not known whose results"), owned(folder, settings, ["a"]):
            pass


@pytest.mark.parametrize("command", [sweep_command(VARIANTS["original"], "x"), baseline_command("transformer")])
def test_sites_can_be_told_to_sweeps_and_baselines_as_to_the_loop(command, tmp_path, monkeypatch):
    asked = []

    def run(stages, resources, cluster, *_, **__):
        asked.append(cluster)

    monkeypatch.setattr("pipeline.sweeps.sweep.run_sweep", run)
    file = tmp_path / "site.yaml"
    file.write_text(
        "cluster: {kind: slurm, partition: gpu, setup: [module load cuda], sbatch: {nice: 5}}\ntraining: {}\n"
    )
    flags = ["--cluster_config", str(file), "--partition", "long", "--qos", "high", "--gres", "gpu:a100:1"]
    flags += ["--constraint", "a100", "--exclude", "n1", "--sbatch", "mem=null", "exclusive", "time-min=1:00:00"]
    monkeypatch.setattr("envs.family.find_task_file", lambda *_: tmp_path / "data")
    parse_flags(command, flags)
    (cluster,) = asked
    sbatch = {"nice": 5, "mem": None, "exclusive": True, "time-min": "1:00:00"}
    assert cluster == ClusterConfig(
        kind="slurm",
        partition="long",
        qos="high",
        gres="gpu:a100:1",
        constraint="a100",
        exclude="n1",
        setup=("module load cuda",),
        sbatch=sbatch,
    )
    assert ClusterFlags().config() == ClusterConfig()
    file.write_text("cluster: {partitoin: gpu}")
    with pytest.raises(ConfigError, match=r"site\.yaml: cluster: unknown key 'partitoin'; did you mean 'partition'"):
        parse_flags(command, flags)
