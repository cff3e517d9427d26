import numpy as np
import pytest
import torch

from dsrl.behavior_cloning import checkpoint_file, train
from dsrl.config import DiffusionBCConfig
from dsrl.demos import read_demonstrations
from dsrl.diffusion_policy import Checkpoint, DiffusionPolicy
from envs.robomimic.task import POLICY_KEYS, RobomimicTask
from runtime.errors import ConfigError, DataError, StateError
from tests.dsrl.conftest import CPU, TINY


def test_a_killed_training_ends_as_one_that_was_not(demos, cloned, tmp_path):
    half = checkpoint_file(cloned.parent, 2)
    (tmp_path / half.name).write_bytes(half.read_bytes())
    config = DiffusionBCConfig(save_dir=str(tmp_path), **TINY)
    resumed = Checkpoint.read(train(read_demonstrations(demos), RobomimicTask.standard("lift"), config, device=CPU))
    whole = Checkpoint.read(cloned)
    for part in ("model", "ema"):
        for name, value in whole.contents[part].items():
            torch.testing.assert_close(resumed.contents[part][name], value, rtol=0, atol=0)
    with pytest.raises(StateError, match=r"made with other settings \(batch_size\)"):
        other = DiffusionBCConfig(save_dir=str(tmp_path), **{**TINY, "batch_size": 8})
        train(read_demonstrations(demos), RobomimicTask.standard("lift"), other, device=CPU)


def test_a_checkpoint_carries_all_that_acting_needs(cloned):
    checkpoint = Checkpoint.read(cloned)
    assert checkpoint.contents["obs_keys"] == list(POLICY_KEYS)
    assert checkpoint.args["pred_horizon"] == 4
    assert checkpoint.contents["data"]["demonstrator"] == "scripted"
    policy = DiffusionPolicy(checkpoint, ddim_steps=3)
    last = DiffusionPolicy(checkpoint, ddim_steps=3, use_ema=False)
    observation, w = np.random.default_rng(0).normal(size=(3, 19)), np.ones((3, 28), np.float32)
    actions = policy.act(observation, w)
    assert actions.shape == (3, 28)
    assert np.abs(actions).max() <= 1
    np.testing.assert_array_equal(actions, policy.act(observation, w))
    assert not np.array_equal(actions, last.act(observation, w)), "the averaged weights are others"


def test_faults_of_a_checkpoint_are_named(cloned, tmp_path, policy):
    with pytest.raises(DataError, match="no such checkpoint"):
        Checkpoint.read(tmp_path / "state_1.pt")
    (tmp_path / "cut.pt").write_bytes(cloned.read_bytes()[:3000])
    with pytest.raises(DataError, match="not a readable checkpoint"):
        Checkpoint.read(tmp_path / "cut.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="not a checkpoint of a diffusion policy"):
        Checkpoint.read(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="a policy of the task 'lift', not of 'can'"):
        Checkpoint.read(cloned).expect_task("can")
    contents = torch.load(cloned, weights_only=True)
    contents["args"]["hidden_dims"] = [16]
    torch.save(contents, tmp_path / "wrong.pt")
    with pytest.raises(DataError, match=r"wrong\.pt: ema has"):
        DiffusionPolicy.load(tmp_path / "wrong.pt")
    for key, value in (("args", [1]), ("obs_keys", [1]), ("obs_normalizer", {"low": torch.zeros(3)}), ("ema", "no")):
        torch.save(torch.load(cloned, weights_only=True) | {key: value}, tmp_path / "wrong.pt")
        with pytest.raises(DataError, match=r"wrong\.pt: "):
            DiffusionPolicy.load(tmp_path / "wrong.pt")
    with pytest.raises(DataError, match="not finite"):
        policy.to_actions(torch.full((1, 28), float("nan")))


def test_a_small_training_learns(demos, tmp_path):
    config = DiffusionBCConfig(
        save_dir=str(tmp_path),
        **{
            **TINY,
            "hidden_dims": (128, 128),
            "epochs": 250,
            "precision": "float32",
            "learning_rate": 3e-3,
            "batch_size": 32,
        },
    )
    data = read_demonstrations(demos)
    policy = DiffusionPolicy.load(train(data, RobomimicTask.standard("lift"), config, device=CPU))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        w = torch.randn(len(data), 28).numpy()
    error = np.abs(policy.act(data.observations, w)[:, :7] - data.actions).mean()
    guess = np.abs(data.actions - np.median(data.actions, axis=0)).mean()
    assert error < 0.7 * guess, "far better than the best constant action"
