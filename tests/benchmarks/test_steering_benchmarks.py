"""The benchmarks of noise aliasing and of plain SAC, at their smallest."""

import csv
import io

import pytest

from benchmarks import aliasing, online_gym
from runtime.atomic import read_json
from runtime.errors import ConfigError


def test_noise_aliasing_is_measured_beside_sac(tmp_path, capsys):
    aliasing.main(seconds=0.5, batch_size=8, width=16, json=tmp_path / "x.json")
    found = read_json(tmp_path / "x.json")
    assert set(found["milliseconds"]) == set(aliasing.VARIANTS)
    assert min(found["milliseconds"].values()) > 0
    assert "cores" in found["machine"]
    assert "of SAC's" in capsys.readouterr().out


def test_both_learners_of_plain_sac_are_compared_on_the_same_steps_and_seeds(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text("learning_starts: 10\nhorizon: 20\nn_episodes: 2\nbatch_size: 8\nsac: {hidden_dims: [8, 8]}\n")
    options = {"total_timesteps": 40, "eval_freq": 20, "seeds": (0, 1), "config": config, "out": tmp_path / "out"}
    online_gym.main(**options)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "curves.csv").read_text())))
    assert [(row["learner"], row["seed"], row["step"]) for row in rows] == [
        (name, seed, step) for name in ("ours", "stable_baselines3") for seed in "01" for step in ("20", "40")
    ]
    assert all(float(row["return"]) > 0 for row in rows)
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    before = (tmp_path / "out" / "curves.csv").read_text()
    online_gym.main(**options)
    assert (tmp_path / "out" / "curves.csv").read_text() == before, "finished runs are not run again"
    with pytest.raises(ConfigError, match="--learners theirs: expected ours, stable_baselines3"):
        online_gym.main(learners=("theirs",), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
