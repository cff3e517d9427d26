"""What a configuration of the loop may hold."""

import json
import math
from pathlib import Path

import pytest

from envs.family import find_family
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.run import Run
from pipeline.loop.runner import carry_out
from runtime.errors import ConfigError
from runtime.program import PROJECT_ROOT


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_train": 0}, "num_train 0: expected at least 1"),
        ({"diffusion_seed": -1}, "diffusion_seed -1: expected 0 to"),
        ({"rl_seeds": [0, 2**64]}, r"rl_seeds \(0, \d+\): expected one or more numbers, each 0 to"),
        ({"success_threshold": math.nan}, "success_threshold nan: expected 0 to 1"),
        ({"network": {"heads": 0}}, "network.heads 0: expected at least 1"),
        ({"network": {"time_scale": math.inf}}, "network.time_scale inf: expected above 0"),
        ({"training": {"learning_rate": math.nan}}, "training.learning_rate nan: expected above 0"),
        ({"training": {"std_offset": 0.0}}, "training.std_offset 0.0: expected above 0"),
        ({"training": {"P_mean": math.nan}}, "training.P_mean nan: expected a finite number"),
        ({"training": {"ema_decay": 1.5}}, "training.ema_decay 1.5: expected 0 to 1"),
        (
            {"training": {"betas": [0.9, 1.0]}},
            r"training.betas \(0.9, 1.0\): expected one or more numbers, each 0 to below 1",
        ),
        ({"training": {"betas": [0.9]}}, r"training.betas \(0.9,\): expected tuple\[float, float\]"),
        ({"training": {"checkpoint_seconds": -1}}, "training.checkpoint_seconds -1.0: expected at least 0"),
        ({"sampling": {"steps": 1}}, "sampling.steps 1: expected at least 2"),
        ({"sampling": {"sigma_max": math.inf}}, "sampling.sigma_max inf: expected above 0"),
        ({"sampling": {"sigma_min": 90.0}}, r"sampling.sigma_min 90.0: expected below sigma_max \(80.0\)"),
        ({"sampling": {"S_churn": -1.0}}, "sampling.S_churn -1.0: expected at least 0"),
        ({"quality": {"max_duplicates": 2.0}}, "quality.max_duplicates 2.0: expected 0 to 1"),
        ({"policy": {"fresh_episodes": -1}}, "policy.fresh_episodes -1: expected at least 0"),
        (
            {"policy": {"learners": {"td3_bc": {"discount": 1.1}}}},
            "policy.learners.td3_bc: discount 1.1: expected 0 to 1",
        ),
        (
            {"policy": {"learners": {"td3_bc": {"hidden_dims": [256, 0]}}}},
            r"policy.learners.td3_bc: hidden_dims \(256, 0\): expected one or more numbers, each at lea",
        ),
        (
            {"policy": {"learners": {"iql": {"hidden_dims": []}}}},
            r"policy.learners.iql: hidden_dims \(\): expected one or more numbers, each at least 1",
        ),
        ({"policy": {"learners": {"iql": {"tau": 0.0}}}}, "policy.learners.iql: tau 0.0: expected above 0 to 1"),
        (
            {"policy": {"learners": {"iql": {"expectile": 1.0}}}},
            "policy.learners.iql: expectile 1.0: expected above 0 to below 1",
        ),
        ({"collect": {"noise": math.nan}}, "collect.noise nan: expected at least 0"),
        ({"cluster": {"poll_seconds": math.inf}}, "cluster.poll_seconds inf: expected above 0"),
        ({"retry": {"max_memory_gb": 0}}, "retry.max_memory_gb 0: expected at least 1"),
        ({"retry": {"max_time_hours": math.nan}}, "retry.max_time_hours nan: expected above 0"),
    ],
    ids=str,
)
def test_a_number_out_of_range_is_named_with_its_section_when_the_configuration_is_read(values, message):
    with pytest.raises(ConfigError, match=f"^flags: {message}"):
        load_pipeline_config(None, values)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "meta", "cpu:0", "mps", ""])
def test_a_device_that_no_machine_has_is_refused_when_the_configuration_is_read(name):
    with pytest.raises(ConfigError, match=f"device '{name}': expected auto, cpu or cuda"):
        load_pipeline_config(None, {"device": name})


def test_a_device_that_this_machine_lacks_is_refused_before_data_is_recorded(tmp_path, monkeypatch):
    """Where jobs go to a cluster it may be there all the same."""
    monkeypatch.chdir(PROJECT_ROOT)
    paths = {name: tmp_path / name for name in ("results_path", "data_path", "logs_path")}
    config = load_pipeline_config(Path("tests/tiny.yaml"), {"paths": paths, "device": "cuda:97"})
    with pytest.raises(ConfigError, match=r"device 'cuda:97': this machine has \d+ CUDA devices"):
        carry_out(Run.of(config))
    assert not (tmp_path / "data_path").exists()


def test_an_iteration_before_the_first_has_no_model():
    with pytest.raises(ConfigError, match="--diffusion_training_run -1: expected 0 or more"):
        load_pipeline_config(None, {}).model_name(-1)


def test_the_folder_of_splits_goes_by_its_older_name_as_well(tmp_path):
    for name in ("tasks_path", "splits_path"):
        assert load_pipeline_config(None, {"paths": {name: tmp_path}}).paths.splits_path == tmp_path
    recorded = {"paths": {"tasks_path": None, "data_path": tmp_path}}
    (file := tmp_path / "config.json").write_text(json.dumps(recorded, default=str))
    assert load_pipeline_config(file, {}).paths.splits_path is None
    assert load_pipeline_config(file, {"paths": {"splits_path": tmp_path}}).paths.splits_path == tmp_path
    with pytest.raises(ConfigError, match="paths has splits_path and its older name tasks_path, expected one of them"):
        load_pipeline_config(None, {"paths": {"tasks_path": tmp_path, "splits_path": tmp_path}})


def test_splits_are_the_familys_where_no_folder_is_given(tmp_path):
    config = load_pipeline_config(None, {})
    assert config.paths.resolved().splits_path is None
    assert Run.of(config).tasks.train == find_family("composuite").split("component-wise", 0).first(14)
