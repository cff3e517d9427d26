"""The benchmarks compare what is equal, and each runs at its quick size."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from benchmarks import collect, data, env, iteration, online, robomimic, sample, study, train, validate
from benchmarks.limits import Measurement
from diffusion.elements import ElementLinear
from envs.collect import collect as record
from envs.recording import CollectConfig
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import find_task_file, read_expert
from pipeline.commands.tasks_flags import TasksFlags
from runtime.atomic import read_json, write_json
from runtime.errors import ConfigError, DataError
from runtime.program import PROJECT_ROOT
from scripts import evaluate_experts
from tests.benchmark_axes import benchmark_axes


def test_the_naive_network_computes_what_the_fast_one_does():
    layer, x = ElementLinear(4, 14, 8), torch.randn(20, 2, 14)
    torch.nn.init.normal_(layer.bias)
    one_hot = torch.eye(4)[torch.arange(20) % 4]
    fast = layer(x, one_hot)
    with train.naive():
        torch.testing.assert_close(layer(x, one_hot), fast)
    assert ElementLinear.forward is not train.masked_loop


@benchmark_axes
@pytest.mark.parametrize("name", ["IIWA_Box_None_Push", "IIWA_Box_ObjectDoor_Shelf", "IIWA_Box_None_Trashcan"])
def test_recorded_rewards_agree_with_their_states_and_altered_ones_do_not(shared, name):
    task = CompoSuiteTask.parse(name)
    matrix = read_expert(find_task_file(shared / "expert_data", "expert", task), task).to_matrix(
        COMPOSUITE, timeouts_as_terminals=False
    )[::20]
    assert sample.reward_agreement(matrix, task) == 1.0
    matrix[:, COMPOSUITE.reward] += 0.2
    assert sample.reward_agreement(matrix, task) < 0.3


def test_a_ratio_is_of_the_limit_measured_beside_it():
    assert Measurement("x", "y", 2.0, achieved=30.0, limit=40.0, unit="FLOP/s").ratio == 0.75


def test_sizes_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--seconds 0"):
        env.main(seconds=0.0)
    with pytest.raises(ConfigError, match="episodes 0"):
        evaluate_experts.main(TasksFlags(), evaluate_experts.CloneFlags(), episodes=0)
    for main, options, message in (
        (env.main, {"tasks": ()}, "--tasks nothing"),
        (online.main, {"num_envs": 0}, "--num_envs 0: expected at least 1"),
        (online.main, {"seconds": math.nan}, "--seconds nan"),
        (robomimic.main, {"data_path": Path("x"), "seconds": -1.0}, "--seconds -1"),
        (collect.main, {"transitions": 0}, "--transitions 0"),
        (collect.main, {"workers": -1}, "--workers -1"),
        (data.main, {"rows": 0}, "--rows 0"),
        (train.main, {"steps": 0}, "--steps 0"),
        (train.main, {"denoiser": "dito"}, "denoiser 'dito': expected one of dit"),
        (sample.main, {"batch_size": -1}, "--batch_size -1"),
        (sample.main, {"of": sample.QualityFlags(csv=Path("q.csv"))}, "--csv: expected --checkpoint beside it"),
        (
            sample.main,
            {"of": sample.QualityFlags(plot_file=Path("q.png"))},
            "--plot_file: expected --checkpoint beside it",
        ),
        (
            sample.main,
            {"of": sample.QualityFlags(checkpoint=Path("m.pt")), "json": Path("f.json")},
            "--json: .* expected no --checkpoint",
        ),
        (validate.main, {"members": 0}, "--members 0"),
        (iteration.main, {"cores": -1}, "--cores -1"),
        (iteration.main, {"env_steps": -1.0}, "--env_steps -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            main(**options)
    with pytest.raises(DataError, match="no such file"):
        robomimic.main(tmp_path / "absent.hdf5")


@pytest.mark.parametrize(
    ("benchmark", "options", "figure"),
    [
        (train, {"denoiser": "DiT1D-XS"}, "speed_up_over_naive"),
        (sample, {"denoiser": "DiT1D-XS"}, "minutes_for_1M_samples_heun_churn_128"),
        (validate, {}, "minutes_for_178_policies"),
        (validate, {"quick": False, "steps": 51, "members": 2, "batch_size": 4}, "speed_up_over_alone"),
        (data, {}, "result_gigabytes"),
    ],
    ids=["train", "sample", "validate", "more steps than a block", "data"],
)
def test_each_benchmark_runs_quickly_and_writes_its_figures(benchmark, options, figure, tmp_path):
    benchmark.main(**{"quick": True, "json": tmp_path / "figures.json", **options})
    figures = read_json(tmp_path / "figures.json")
    assert figures[figure] > 0
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in figures["measurements"])


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_an_iteration_counts_evaluation_beside_training_only_where_a_gpu_trains(kind, tmp_path, monkeypatch):
    def part(**figures):
        return lambda *, json, **_: write_json(json, figures)

    monkeypatch.setattr(iteration.train, "main", part(minutes_for_100k_steps=1.0))
    monkeypatch.setattr(iteration.sample, "main", part(minutes_for_1M_samples_dpmpp_2m_8=1.0))
    monkeypatch.setattr(iteration.validate, "main", part(minutes_for_178_policies=7.0))
    monkeypatch.setattr(iteration.data, "main", part(measurements=[{"achieved": 1e9}], result_gigabytes=0.0))
    monkeypatch.setattr(iteration, "pick_device", lambda _: torch.device(kind))
    steps = 178 * 10 * 10 * 500
    iteration.main(cores=2, env_steps=steps / 2 / 60 / 10, json=tmp_path / "sum.json")  # ten minutes on two cores
    minutes = read_json(tmp_path / "sum.json")["minutes"]
    expected = {"cpu": ("after", 10.0), "cuda": ("beyond", 3.0)}[kind]
    assert minutes[f"evaluate them on 2 cores, {expected[0]} training"] == pytest.approx(expected[1])
    assert minutes["in all"] == pytest.approx(1.0 + 50 + 7 + expected[1])


def test_measurements_for_a_gpu_need_torch_numpy_and_h5py_alone(tmp_path):
    absent = ["tyro", "dacite", "yaml", "pandas", "mujoco", "robosuite", "gymnasium", "numba", "wandb", "submitit"]
    absent += ["matplotlib", "rich", "imageio"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from benchmarks import data, iteration, sample, train, validate\n"
        "validate.main(quick=True)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "minutes for 178 policies" in result.stdout


def test_recorded_actions_have_no_error_against_the_expert_and_altered_ones_have_theirs(tmp_path):
    task = CompoSuiteTask.parse("IIWA_Box_None_Push")
    record([task], CollectConfig(episodes=1, horizon=30, noise=0.0), tmp_path, workers=1)
    recorded = read_expert(find_task_file(tmp_path, "expert", task), task)
    actions = np.clip(recorded.actions, -0.5, 0.5)
    assert study.action_error(recorded.states, recorded.actions, task) < 1e-5
    assert study.action_error(recorded.states, actions, task) == pytest.approx(
        float(np.sqrt(np.mean((actions - recorded.actions) ** 2))), abs=1e-4
    )


def test_a_study_tells_its_variants_apart_and_goes_on_with_what_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    base = yaml.safe_load((PROJECT_ROOT / "tests" / "tiny.yaml").read_text())
    base["generation_group"] = base["policy"]["group"] = 8  # a process per stage: most of the time is their start
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    plan = tmp_path / "study.yaml"
    plan.write_text(
        f"base: {tmp_path / 'base.yaml'}\n"
        "variants: {as it is: {}, wider: {network: {hidden: 32}}, solved: {sampling: {steps: 3}}}\n"
    )
    study.main(plan, tmp_path / "out", only=["as it is"])
    model = next((tmp_path / "out" / "as_it_is").rglob("model-40.pt"))
    trained = model.stat().st_mtime_ns
    study.main(plan, tmp_path / "out")
    with (tmp_path / "out" / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    work = {row["variant"]: float(row["flop"]) for row in rows}
    assert set(work) == {"as it is", "wider", "solved"}
    assert work["wider"] > 2 * work["as it is"]
    assert work["solved"] == work["as it is"]
    assert all(float(row["action_error"]) > 0 and int(row["trials"]) > 0 for row in rows)
    assert model.stat().st_mtime_ns == trained
    shared = next((tmp_path / "out" / "solved").rglob("model-40.pt"))
    assert shared.read_bytes() == model.read_bytes() and shared.stat().st_mtime_ns == trained
    assert (tmp_path / "out" / "study.png").stat().st_size > 1000
    table = (tmp_path / "out" / "study.csv").read_text()
    study.main(plan, tmp_path / "out", only=["as it is"])
    assert (tmp_path / "out" / "study.csv").read_text() == table
    (tmp_path / "out" / "study.csv").write_text("")
    with pytest.raises(ConfigError, match=r"study.csv: not a table of a study"):
        study.main(plan, tmp_path / "out", only=["as it is"])
    (tmp_path / "out" / "study.csv").write_text("task,steps\n")
    with pytest.raises(ConfigError, match=r"study.csv: has the columns task, steps, expected variant"):
        study.main(plan, tmp_path / "out", only=["as it is"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{as it is: {}, as_it is: {}}", "variants 'as it is' and 'as_it is': would share the folder as_it_is"),
        ("{a/b: {}}", "variant 'a/b': expected a name that a folder can have"),
        ("{..: {}}", r"variant '\.\.': expected a name that a folder can have"),
        ("{'': {}}", "variant '': expected a name that a folder can have"),
    ],
)
def test_variants_of_a_study_that_have_no_folder_of_their_own_are_refused(names, message, tmp_path):
    plan = tmp_path / "study.yaml"
    plan.write_text(f"base: tests/tiny.yaml\nvariants: {names}\n")
    with pytest.raises(ConfigError, match=message):
        study.main(plan, tmp_path / "out")


def test_a_mistake_in_a_studys_last_variant_is_told_before_the_first_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)
    plan = tmp_path / "study.yaml"
    plan.write_text("base: tests/tiny.yaml\nvariants: {as it is: {}, other: {training: {stesp: 3}}}\n")
    expected = r"variant 'other' over tests/tiny.yaml: unknown key 'training.stesp'; did you mean 'steps'"
    with pytest.raises(ConfigError, match=expected):
        study.main(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_variants_whose_names_are_numbers_stay_in_the_table(tmp_path):
    row = dict.fromkeys(study.COLUMNS, 1) | {"variant": "0650", "only_steps": True}
    study.write_csv(tmp_path / "study.csv", study.COLUMNS, [row])
    assert list(study.earlier_rows(tmp_path / "study.csv")) == ["0650"]
