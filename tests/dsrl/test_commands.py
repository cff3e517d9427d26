import pytest

from dsrl.config import BCConfig, DSRLConfig, load_task_config
from dsrl.curves import draw_runs
from runtime.errors import ConfigError, DataError
from runtime.metrics import MetricsWriter
from tests.dsrl.conftest import ROOT, run_command


def test_flags_go_over_the_task_s_file_over_defaults(tmp_path):
    config = load_task_config(BCConfig, "bc", "square", None, {"epochs": 7, "seed": None})
    assert (config.epochs, config.time_dim, config.hidden_dims) == (7, 32, (1024, 1024, 1024))
    (tmp_path / "mine.yaml").write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'epoch'; did you mean 'epochs'"):
        load_task_config(BCConfig, "bc", "lift", tmp_path / "mine.yaml", {})
    with pytest.raises(ConfigError, match="utd 0"):
        DSRLConfig(utd=0)
    with pytest.raises(ConfigError, match="hidden_dims"):
        BCConfig(hidden_dims=())


def test_the_commands_run_one_after_the_other(demos, tmp_path):
    small = ["--hidden_dims", 32, 32, "--epochs", 2, "--device", "cpu"]
    bc = run_command("-m", "dsrl.train_bc", "--task", "lift", "--data_path", demos, "--save_dir", tmp_path, *small)
    assert bc.returncode == 0, bc.stderr
    checkpoint = tmp_path / "state_2.pt"
    # From the folder, as a plain script.
    few = ["--n_episodes", 2, "--horizon", 8, "--ddim_steps", 2]
    done = run_command("evaluate.py", "--checkpoint", checkpoint, *few, cwd=ROOT / "dsrl")
    assert done.returncode == 0, done.stderr
    assert "of 2 solved" in done.stdout
    assert (tmp_path / "evaluation" / "episodes.csv").read_text().count("\n") == 3
    wrong = run_command("-m", "dsrl.evaluate", "--checkpoint", checkpoint, "--task", "square")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "not of 'square'" in wrong.stderr


def test_curves_of_several_runs_are_one_picture_and_a_table(tmp_path):
    row = {
        "rate": 0.5,
        "mean_rate": 0.5,
        "sampled_rate": 0.375,
        "base_rate": 0.25,
        "mean_decisions": 9.0,
        "online_rate": -1.0,
        "gradient_steps": 4,
        "seconds": 1,
    }
    for name in ("one", "two"):
        metrics = MetricsWriter(tmp_path / name)
        for step in (0, 40):
            metrics.log(step=step, env_steps=step, online_episodes=0, **row)
    draw_runs([tmp_path / "one", tmp_path / "two"], tmp_path / "both.png", "Lift")
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "both.csv").read_text().splitlines()[4] == "two,40,0.5,0.5,0.375,0.25,9.0,-1.0,4,1"
    with pytest.raises(DataError, match="no curve of a steering run"):
        draw_runs([tmp_path / "three"], tmp_path / "none.png", "Lift")
