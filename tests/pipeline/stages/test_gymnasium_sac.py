"""SAC on a plain task of gymnasium: the command, its target entropy, and that it goes on after a kill."""

import math

import numpy as np
import pytest

from corl.online import read_history
from corl.sac import SACConfig
from envs.gymnasium_task import GymnasiumTask
from pipeline.commands.gymnasium_sac import train_sac_gymnasium
from pipeline.stages.gymnasium_sac import in_units_of
from runtime import interrupt
from runtime.cli import parse_flags
from runtime.errors import ConfigError, TaskError
from tests.resuming import stopped


@pytest.fixture(autouse=True)
def _nobody_asks():
    interrupt.clear()
    yield
    interrupt.clear()


def _train(folder, **options):
    folder.mkdir(parents=True, exist_ok=True)
    config = folder.parent / "tiny.yaml"
    config.write_text(
        "learning_starts: 20\nhorizon: 30\nbatch_size: 16\nsac: {hidden_dims: [16, 16], layer_norm: none}\n"
    )
    sizes = ["--total_timesteps", "80", "--eval_freq", "40", "--n_eval_episodes", "2", "--seed", "3", "--no_cuda"]
    options = [f"--{name}={value}" for name, value in options.items()]
    parse_flags(train_sac_gymnasium, [f"--config={config}", f"--runs_path={folder}", *sizes, *options])
    rows = read_history(folder / "Hopper-v5__sac__3")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_run_that_is_stopped_ends_with_the_numbers_of_one_that_is_not(tmp_path):
    whole = _train(tmp_path / "whole")
    assert [row["global_step"] for row in whole] == [40, 80]
    assert all(row["episodic_return"] > 0 for row in whole)
    stopped(_train, tmp_path / "cut", 30)
    assert (tmp_path / "cut" / "Hopper-v5__sac__3" / "resume.pt").exists()
    assert _train(tmp_path / "cut") == whole


def test_the_target_entropy_is_that_of_the_environment_s_own_actions():
    config = SACConfig()
    assert in_units_of(GymnasiumTask.standard("Hopper-v5"), config).entropy_per_action == -1
    found = in_units_of(GymnasiumTask.standard("Pusher-v5"), config).entropy_per_action
    assert found == pytest.approx(-1 - math.log(2)), "actions in [-2, 2] have log 2 more of entropy per number"
    samples = np.random.default_rng(0).uniform(-1, 1, 10_000)
    assert np.log(np.histogram(2 * samples, 1, density=True)[0][0]) == pytest.approx(-math.log(4), abs=0.01)


def test_a_task_that_is_none_is_named(tmp_path):
    with pytest.raises(TaskError, match="'CartPole-v1'"):
        parse_flags(train_sac_gymnasium, ["--env_id", "CartPole-v1", "--runs_path", str(tmp_path)])
    with pytest.raises(ConfigError, match="learning_starts"):
        parse_flags(train_sac_gymnasium, ["--learning_starts", "-1", "--runs_path", str(tmp_path)])
