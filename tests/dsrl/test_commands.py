import dataclasses
import math
import re

import pytest
import yaml

from dsrl import collect_demos, curves, evaluate, record_eval, train_bc, train_dsrl
from dsrl.config import DiffusionBCConfig, DSRLConfig, load_task_config
from dsrl.curves import draw_runs
from runtime.atomic import read_json
from runtime.cli import parse_flags
from runtime.errors import ConfigError, DataError
from runtime.metrics import MetricsWriter
from tests.dsrl.conftest import ROOT, call, run_command


def test_flags_go_over_the_task_s_file_over_defaults(tmp_path):
    config = load_task_config(DiffusionBCConfig, "bc", "square", None, {"epochs": 7})
    assert (config.epochs, config.time_dim, config.hidden_dims) == (7, 32, (1024, 1024, 1024))
    (tmp_path / "mine.yaml").write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match="unknown key 'epoch'; did you mean 'epochs'"):
        load_task_config(DiffusionBCConfig, "bc", "lift", tmp_path / "mine.yaml", {})
    with pytest.raises(ConfigError, match="utd 0"):
        DSRLConfig(utd=0)
    with pytest.raises(ConfigError, match="hidden_dims"):
        DiffusionBCConfig(hidden_dims=())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ddim_steps", 0),
        ("action_magnitude", math.inf),
        ("learning_rate", -1.0),
        ("discount", math.nan),
        ("tau", 0.0),
        ("target_entropy", math.nan),
        ("least_base_rate", 2.0),
        ("hidden_dims", ()),
        ("ent_coef", "high"),
        ("ent_coef", "auto_x"),
        ("ent_coef", "-1"),
        ("spacing", "odd"),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_settings_of_steering_that_cannot_be_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        DSRLConfig(**{name: value})


@pytest.mark.parametrize("weight", ["auto", "auto_0.02", "auto_1e-3", "0", "0.1"])
def test_the_weight_of_the_entropy_may_be_learned_or_given(weight):
    assert DSRLConfig(ent_coef=weight).ent_coef == weight


def _help(main, capsys) -> dict[str, tuple[str, str]]:
    """Flag -> its line of help, with the type before it, and its default; of a switch under `no_` and its name."""
    with pytest.raises(SystemExit):
        parse_flags(main, ["--help"])
    text = " ".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    found = (re.match(r"(\w+) (.*?) ?\(default: (.*?)\)", entry) for entry in re.split(r"(?:^| )--(?=\w)", text))
    return {match[1]: (match[2], match[3]) for match in found if match}


@pytest.mark.parametrize(
    ("main", "config"), [(train_bc.main, DiffusionBCConfig), (train_dsrl.main, DSRLConfig)], ids=["clone", "steer"]
)
def test_every_setting_is_a_flag_with_a_line_of_help_and_its_default(main, config, capsys):
    shown = _help(main, capsys)
    for field in dataclasses.fields(config):
        kind = type(field.default)
        words, default = shown[f"no_{field.name}" if kind is bool else field.name]
        assert len(re.sub(r"[\[\]]|\b(INT|FLOAT|STR)\b|\.\.\.", "", words).strip()) > 3, field.name
        if kind is tuple:
            assert tuple(map(int, default.split())) == field.default, field.name
        elif field.name != "task":
            assert kind(yaml.safe_load(default)) == field.default, field.name


def _printed(main, capsys, **flags):
    call(main, **flags, print_config=True)
    return yaml.safe_load(capsys.readouterr().out)


def test_flags_lie_over_the_tasks_file_and_what_is_printed_loads_again(cloned, capsys, tmp_path):
    of_file = dataclasses.asdict(load_task_config(DSRLConfig, "dsrl", "lift", None, {}))
    published = {"train_steps": 77, "eval_every": 5, "eval_episodes": 3, "critic_layer_norm": False}
    settings = _printed(train_dsrl.main, capsys, bc_checkpoint=cloned, **published)
    given = {"max_timesteps": 77, "eval_freq": 5, "n_episodes": 3, "critic_layer_norm": False}
    assert settings == {**of_file, **given, "hidden_dims": list(of_file["hidden_dims"])}
    (tmp_path / "printed.yaml").write_text(yaml.safe_dump(settings))
    assert _printed(train_dsrl.main, capsys, bc_checkpoint=cloned, config=tmp_path / "printed.yaml") == settings
    cloning = _printed(train_bc.main, capsys, task="square", epochs=7)
    assert (cloning["epochs"], cloning["task"]) == (7, "square")
    assert not any(path.name != "printed.yaml" for path in tmp_path.iterdir())


def test_flags_of_the_commands_that_cannot_be_are_refused(cloned, tmp_path):
    for main, options, message in (
        (evaluate.main, {"checkpoint": cloned, "workers": -1}, "--workers -1"),
        (evaluate.main, {"checkpoint": cloned, "deterministic": True}, "--deterministic: expected --sac"),
        (evaluate.main, {"checkpoint": cloned, "ddim_steps": 0}, "ddim_steps 0"),
        (evaluate.main, {"checkpoint": cloned, "eta": -1.0}, "eta -1"),
        (evaluate.main, {"checkpoint": cloned, "eta": math.nan}, "eta nan"),
        (record_eval.main, {"checkpoint": cloned, "n_episodes": 0}, "--n_episodes 0"),
        (record_eval.main, {"checkpoint": cloned, "horizon": 0}, "--horizon 0"),
        (record_eval.main, {"checkpoint": cloned, "deterministic": True}, "--deterministic: expected --sac"),
        (collect_demos.main, {"tasks": ()}, "--tasks nothing"),
        (collect_demos.main, {"tasks": ("lift", "lift")}, "--tasks lift, lift: .* none of them twice"),
        (collect_demos.main, {"noise": math.inf}, "noise inf"),
        (collect_demos.main, {"download": True, "url": "ftp"}, "--url 'ftp'"),
        (collect_demos.main, {"download": True, "url": "http://x/{y}"}, "--url 'http://x/{y}'"),
        (curves.main, {"runs": (), "output": tmp_path / "x.png"}, "--runs nothing"),
        (curves.main, {"runs": (tmp_path,), "output": tmp_path / "x.xyz"}, "x.xyz: expected a picture's name"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(main, **options)
    assert not any(tmp_path.iterdir())


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
    assert (tmp_path / "evaluation" / "state_2" / "episodes.csv").read_text().count("\n") == 3
    # Another checkpoint's figures stand beside them.
    call(evaluate.main, checkpoint=tmp_path / "state_2.pt", use_ema=False, n_episodes=1, horizon=4, ddim_steps=2)
    for name, weights in (("state_2", "ema"), ("state_2_last_weights", "last")):
        assert read_json(tmp_path / "evaluation" / name / "summary.json")["weights"] == weights
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
