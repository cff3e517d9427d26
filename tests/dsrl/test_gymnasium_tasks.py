"""A MuJoCo task of gymnasium through the whole of steering: expert, demonstrations, clone, DSRL; its environment."""

import json

import gymnasium
import h5py
import numpy as np
import pytest

from dsrl import collect_demos, evaluate, train_bc, train_dsrl
from dsrl.config import DiffusionBCConfig, DSRLConfig, load_task_config
from dsrl.inspect_data import describe
from dsrl.tasks import standard_task, task_of
from envs.chunked_env import ChunkedEnv
from envs.gymnasium_task import GymnasiumTask, gymnasium_names
from pipeline.commands.gymnasium_sac import train_sac_gymnasium
from runtime.atomic import read_json
from runtime.cli import parse_flags
from runtime.errors import ConfigError, DataError, TaskError
from tests.dsrl.conftest import call

HOPPER = GymnasiumTask.standard("Hopper-v5", 20.0)


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """A SAC of a few steps: enough to stand for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "tiny.yaml"
    config.write_text(
        "learning_starts: 20\nhorizon: 60\nbatch_size: 16\nsac: {hidden_dims: [16, 16], layer_norm: none}\n"
    )
    sizes = ["--total_timesteps=60", "--eval_freq=60", "--n_eval_episodes=1", "--success_return=20", "--seed=0"]
    parse_flags(train_sac_gymnasium, ["--config", str(config), "--runs_path", str(folder), *sizes, "--no_cuda"])
    return folder / "Hopper-v5__sac__0" / "checkpoints" / "sac_policy_model.pt"


def test_chunks_are_the_environment_s_own_steps_one_after_the_other():
    env, plain = HOPPER.make_env(chunk=3, horizon=50), gymnasium.make("Hopper-v5", max_episode_steps=50)
    seen, _ = env.reset(seed=3)
    np.testing.assert_allclose(seen, plain.reset(seed=3)[0].astype(np.float32))
    random, over, total = np.random.default_rng(0), False, 0.0
    while not over:
        action = random.uniform(-1, 1, 9)
        seen, reward, terminated, truncated, info = env.step(action)
        expected, executed = 0.0, 0
        for command in action.reshape(3, 3):
            after, gained, *ends, _ = plain.step(command.astype(np.float32))
            expected, executed = expected + gained, executed + 1
            if any(ends):
                break
        total += expected
        over = terminated or truncated
        assert (terminated, truncated) == tuple(ends)
        assert (reward, info["executed"]) == (pytest.approx(expected), executed)
        assert info["held"] == (total >= 20)
        np.testing.assert_allclose(seen, after.astype(np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


@pytest.mark.parametrize("name", ["Hopper-v5", "Pusher-v5", "InvertedPendulum-v5"])
def test_an_episode_goes_on_from_a_snapshot_to_the_last_bit(name):
    task = GymnasiumTask.standard(name)
    env, other = (task.make_env(chunk=2, horizon=40) for _ in range(2))
    env.reset(seed=1)
    random = np.random.default_rng(0)
    for _ in range(3):
        env.step(0.1 * random.uniform(-1, 1, 2 * task.action_dim))
    other.restore(env.snapshot())
    action = 0.1 * random.uniform(-1, 1, 2 * task.action_dim)
    one, two = env.step(action), other.step(action)
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:] == two[1:]
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
    with pytest.raises(DataError, match="not a snapshot"):
        other.restore({"seed": 1})


def test_actions_in_unit_range_reach_the_bounds_of_the_environment():
    task, sent = GymnasiumTask.standard("Pusher-v5"), []
    env = task.make_env()
    step = env.env.step
    env.env.step = lambda action: sent.append(action) or step(action)
    env.reset(seed=0)
    for end in (-1.0, 0.0, 1.0):
        env.step(np.full(7, end))
    np.testing.assert_allclose(sent, [[-2.0] * 7, [0.0] * 7, [2.0] * 7])


def test_a_task_is_known_by_its_name_and_by_what_a_data_file_says():
    assert standard_task("Hopper-v5").success_return == gymnasium.spec("Hopper-v5").reward_threshold
    assert task_of(HOPPER.env_args, "x") == HOPPER
    assert standard_task("lift").name == "lift"
    for name in gymnasium_names():
        assert np.isfinite(GymnasiumTask.standard(name).success_return)
    with pytest.raises(TaskError, match=r"'Hoper-v5', expected|'Hoper-v5': expected"):
        standard_task("Hoper-v5")
    known = json.loads(HOPPER.env_args)
    for change, message in (
        ({"env_name": "os:system"}, r"f: env_args\.env_name is 'os:system'"),
        ({"env_name": "CartPole-v1"}, "env_name is 'CartPole-v1'"),
        ({"env_kwargs": {"xml_file": "/etc/passwd"}}, r"env_kwargs is \{'xml_file'"),
        ({"success_return": "high"}, "success_return is 'high', expected a number"),
        ({"success_return": True}, "success_return is True"),
    ):
        with pytest.raises(DataError, match=message):
            task_of(json.dumps({**known, **change}), "f")
    with pytest.raises(ConfigError, match="Box of one dimension"):
        ChunkedEnv(gymnasium.make("CartPole-v1"))


def test_its_configuration_files_are_found_by_the_task_s_name():
    assert load_task_config(DiffusionBCConfig, "bc", "Hopper-v5", None, {}).hidden_dims == (256, 256, 256)
    config = load_task_config(DSRLConfig, "dsrl", "Hopper-v5", None, {})
    assert (config.reward_offset, config.until_success, config.horizon) == (0.0, False, 1000)


def test_hopper_goes_the_way_of_robomimic_s_tasks_by_the_same_commands(expert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = {"tasks": ("Hopper-v5",), "num_demos": 3, "noise": 0.1, "horizon": 60, "workers": 1}
    with pytest.raises(ConfigError, match="--expert None: expected"):
        call(collect_demos.main, **record)
    call(collect_demos.main, **record, expert=expert, success_return=5.0)
    path = tmp_path / "datasets" / "Hopper-v5" / "scripted" / "low_dim_scripted.hdf5"
    assert "can be cloned: Hopper-v5, of gymnasium" in describe(path)
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        assert demo["obs/flat"].shape == (len(demo["actions"]), 11)
        assert not np.array_equal(demo["actions"], demo["executed_actions"])
        assert demo["rewards"][:].sum() >= 5
    call(train_bc.main, task="Hopper-v5", epochs=2, hidden_dims=(16, 16), device="cpu", save_dir="bc")
    sizes = {"initial_steps": 40, "max_timesteps": 40, "utd": 1, "horizon": 20, "ddim_steps": 2, "eval_freq": 40}
    trials = {"n_episodes": 2, "fresh_episodes": 2, "device": "cpu"}
    for algorithm, extra in (("sac", {}), ("na", {"offline_data": path, "distill_pairs": 2, "distill_steps": 1})):
        out = tmp_path / algorithm
        call(
            train_dsrl.main,
            bc_checkpoint=tmp_path / "bc" / "state_2.pt",
            algorithm=algorithm,
            save_dir=str(out),
            **sizes,
            **trials,
            **extra,
        )
        result = read_json(out / "result.json")
        assert result["task"] == "Hopper-v5"
        assert result["cloned"]["mean_return"] > 0
    call(
        evaluate.main,
        checkpoint=tmp_path / "bc" / "state_2.pt",
        sac=tmp_path / "sac" / "sac_best.zip",
        n_episodes=2,
        horizon=20,
    )
    assert "Hopper-v5: " in capsys.readouterr().out


def test_an_expert_of_another_task_is_refused(expert, tmp_path):
    with pytest.raises(DataError, match="sees 11 numbers, expected the 17 of HalfCheetah-v5"):
        call(
            collect_demos.main,
            tasks=("HalfCheetah-v5",),
            expert=expert,
            num_demos=1,
            workers=1,
            datasets=tmp_path / "datasets",
        )
