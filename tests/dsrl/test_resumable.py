"""Cloning and steering stop when they are asked to and survive a damaged or other file, as the other loops do."""

import numpy as np
import pytest
import torch

from dsrl.behavior_cloning import CloningRun, checkpoint_file, train
from dsrl.config import DiffusionBCConfig
from dsrl.demos import read_demonstrations
from dsrl.diffusion_policy import Checkpoint
from dsrl.steering import Steering, steer
from envs.robomimic.task import RobomimicTask
from runtime import interrupt
from runtime.checkpoint import load_checkpoint
from runtime.errors import DataError
from runtime.metrics import read_metrics
from tests.dsrl.conftest import CPU, TINY, tiny_steering
from tests.resuming import expect_anew, expect_equal, stopped

TASK = RobomimicTask.standard("lift")


@pytest.fixture(autouse=True)
def _nobody_asks():
    interrupt.clear()
    yield
    interrupt.clear()


def _config(folder, **options):
    return DiffusionBCConfig(save_dir=str(folder), **{**TINY, "batch_size": 64, **options})


@pytest.fixture
def clone(demos):
    def clone(folder, **options):
        last = train(read_demonstrations(demos), TASK, _config(folder, **options), device=CPU)
        contents = Checkpoint.read(last).contents
        rows = [{**row, "seconds": 0} for row in read_metrics(folder / "metrics.jsonl")]
        return [contents["model"], contents["ema"], contents["step"], rows]

    return clone


@pytest.mark.parametrize("seconds", [0.0, 60.0])
@pytest.mark.parametrize("steps", [1, 8, 9])
def test_cloning_goes_on_to_the_same_weights_from_within_an_epoch(clone, tmp_path, steps, seconds):
    whole = clone(tmp_path / "whole")
    left = stopped(lambda folder: clone(folder, checkpoint_seconds=seconds), tmp_path / "cut", steps)
    if steps == 1:
        assert len(load_checkpoint(left)["left"]) > 64
    expect_equal(clone(tmp_path / "cut"), whole)
    assert not left.exists()


def test_cloning_begins_anew_from_a_damaged_or_other_file(demos, clone, tmp_path, caplog):
    data = read_demonstrations(demos)
    left = stopped(clone, tmp_path / "cut", 3)
    expect_anew(lambda folder: CloningRun(data, TASK, _config(folder), CPU).state_dict() | {"args": 0}, left, caplog)


def test_cloning_goes_on_from_the_newest_checkpoint_that_is_whole(clone, tmp_path, caplog):
    whole = clone(tmp_path / "run")
    older, anew = "an older one is taken", "training starts anew"
    for epochs, said in (((4,), [older]), ((4, 2), [older, anew])):
        for epoch in epochs:
            path = checkpoint_file(tmp_path / "run", epoch)
            path.write_bytes(path.read_bytes()[:500])
        caplog.clear()
        with caplog.at_level("WARNING"):
            expect_equal(clone(tmp_path / "run")[:3], whole[:3])
        assert [record.getMessage().split("; ")[-1] for record in caplog.records] == said


def test_a_clone_that_diverged_in_its_last_step_is_not_committed(clone, tmp_path, monkeypatch):
    clone(tmp_path / "whole")
    steps = load_checkpoint(checkpoint_file(tmp_path / "whole", 4))["step"]
    update, taken = torch.optim.AdamW.step, []

    def step(self, *arguments):
        update(self, *arguments)
        taken.append(None)
        if len(taken) == steps:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(DataError, match="up to step 4 is not finite"):
        clone(tmp_path / "run")
    assert not checkpoint_file(tmp_path / "run", 4).exists()
    assert checkpoint_file(tmp_path / "run", 2).exists()


def test_steering_begins_anew_from_a_damaged_or_other_file(policy, tmp_path, caplog):
    left = stopped(lambda folder: steer(policy, tiny_steering(folder)), tmp_path / "cut", 9)
    key = load_checkpoint(left)["key"]

    def begin(folder):
        run = Steering(policy, tiny_steering(folder), key)
        run.env.close()
        return {**run.state_dict(), "seconds": 0.0}

    expect_anew(begin, left, caplog)


def test_an_actor_is_not_kept_once_what_was_learned_is_not_finite(policy, tmp_path, monkeypatch):
    evaluate = Steering.evaluate

    def evaluated(self, environments):
        if self.steps:
            with torch.no_grad():
                next(self.model.critic.parameters()).fill_(np.nan)
        return evaluate(self, environments)

    monkeypatch.setattr(Steering, "evaluate", evaluated)
    config = tiny_steering(tmp_path)
    with pytest.raises(DataError, match="is not finite: training has diverged"):
        steer(policy, config)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1, "that of the beginning"
    assert not (tmp_path / "result.json").exists()
