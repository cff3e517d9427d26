"""Training that is asked to stop saves where it is and goes on from there to the same result."""

import numpy as np
import pytest
import torch

import corl.run
from corl.config import PolicyConfig
from corl.evaluate import Evaluation
from corl.replay import ReplayData
from corl.run import PolicyRun
from corl.td3_bc import TD3BC, TD3BCConfig
from corl.train import train_policy
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.model import DiffusionModel
from diffusion.partial import PartialSamples
from diffusion.pool import Pool
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from runtime import interrupt
from runtime.checkpoint import BackgroundSaver, load_checkpoint, replace_torch
from runtime.metrics import read_metrics
from tests.recordings import random_transitions

CPU = torch.device("cpu")
TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")


@pytest.fixture(autouse=True)
def _nobody_asks():
    interrupt.clear()
    yield
    interrupt.clear()


def _ask_after(calls):
    """A function to be called on the way that asks to stop at its n-th call."""
    count = 0

    def step(*_):
        nonlocal count
        count += 1
        if count == calls:
            interrupt.request(15)

    return step


def test_an_interrupted_generator_ends_with_the_weights_and_curve_of_one_that_was_not(tmp_path, monkeypatch):
    pool = Pool.of([random_transitions(64)], COMPOSUITE, timeouts_as_terminals=False)
    config = TrainConfig(steps=12, small_batch_size=8, log_freq=4, precision="float32")

    def run(folder):
        network = DenoiserConfig(hidden=8, depth=1, heads=1)
        train(pool, network, config, folder / "model.pt", seed=0, device=CPU)

    run(tmp_path / "whole")
    ask = _ask_after(5)
    update = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: (ask(), update(self, *args))[1])
    with pytest.raises(interrupt.Interrupted):
        run(tmp_path / "cut")
    assert load_checkpoint(tmp_path / "cut" / "resume.pt")["step"] == 5, "after the step that it was in"
    interrupt.clear()
    run(tmp_path / "cut")
    whole, cut = (load_checkpoint(tmp_path / name / "model.pt")["ema"] for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    curves = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert [row["loss"] for row in curves[0]] == [row["loss"] for row in curves[1]]


def _train_policy(config, evaluate, folder):
    data = ReplayData.of(random_transitions(64), config, COMPOSUITE, CPU)
    return train_policy(PolicyRun(data, config, folder, seed=0, device=CPU), evaluate)


def test_an_interrupted_policy_ends_with_the_curve_of_one_that_was_not(tmp_path, monkeypatch):
    config = PolicyConfig(max_timesteps=12, batch_size=8, eval_freq=5, n_episodes=2)
    config = type(config)(**{**vars(config), "learners": {"td3_bc": TD3BCConfig(hidden_dims=(8, 8))}})

    def evaluate(policy, seeds):
        weight = float(next(policy.actor.parameters()).detach().sum())
        return Evaluation(returns=np.full(len(seeds), weight), successes=np.zeros(len(seeds), bool))

    def run(folder):
        return _train_policy(config, evaluate, folder)

    monkeypatch.setattr(corl.run, "_BLOCK", 2)
    whole = run(tmp_path / "whole")
    ask, update = _ask_after(7), TD3BC.update
    monkeypatch.setattr(TD3BC, "update", lambda self, *args: (ask(), update(self, *args))[1])
    with pytest.raises(interrupt.Interrupted):
        run(tmp_path / "cut")
    assert load_checkpoint(tmp_path / "cut" / "resume.pt")["learner"]["total_it"] == 7, "between two evaluations"
    interrupt.clear()
    assert run(tmp_path / "cut") == whole
    curves = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert [row["step"] for row in curves[0]] == [5, 10, 12]


def _as_of_a_gpu(value):
    """A checkpoint's content with the random states that a GPU would have written."""
    if isinstance(value, dict):
        of_gpu = torch.arange(16, dtype=torch.uint8)
        return {key: of_gpu if key in ("generator", "indices") else _as_of_a_gpu(item) for key, item in value.items()}
    return value


def _move_to_another_device(path):
    replace_torch(_as_of_a_gpu(load_checkpoint(path)), path)


def test_a_generator_in_training_goes_on_on_another_kind_of_device(tmp_path, monkeypatch, caplog):
    pool, network = (
        Pool.of([random_transitions(64)], COMPOSUITE, timeouts_as_terminals=False),
        DenoiserConfig(hidden=8, depth=1, heads=1),
    )
    config = TrainConfig(steps=12, small_batch_size=8, log_freq=4, precision="float32")

    def run():
        train(pool, network, config, tmp_path / "model.pt", seed=0, device=CPU)

    ask, update = _ask_after(5), torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: (ask(), update(self, *args))[1])
    with pytest.raises(interrupt.Interrupted):
        run()
    interrupt.clear()
    _move_to_another_device(tmp_path / "resume.pt")
    with caplog.at_level("INFO"):
        run()
    assert "another kind of device: from step 5 on" in caplog.text
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [4, 8, 12]


@pytest.mark.parametrize("algorithm", ["td3_bc", "iql"])
def test_a_policy_in_training_goes_on_on_another_kind_of_device(algorithm, tmp_path, monkeypatch):
    config = PolicyConfig(algorithm=algorithm, max_timesteps=4, batch_size=8, eval_freq=2, n_episodes=1)

    def evaluate(policy, seeds):
        interrupt.request(15)
        return Evaluation(returns=np.zeros(len(seeds)), successes=np.zeros(len(seeds), bool))

    def run():
        return _train_policy(config, evaluate, tmp_path)

    with pytest.raises(interrupt.Interrupted):
        run()
    interrupt.clear()
    _move_to_another_device(tmp_path / "resume.pt")
    with pytest.raises(interrupt.Interrupted):
        run()
    interrupt.clear()
    assert run().episodes == 1
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [2, 4]


def test_samples_go_on_on_another_kind_of_device(tmp_path):
    samples = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    kept = PartialSamples(tmp_path / "partial", "key", seconds=0.0)
    kept.keep(samples, 4, torch.Generator().manual_seed(0), now=True)
    _move_to_another_device(kept.state_file)
    found, generator = np.zeros_like(samples), torch.Generator().manual_seed(0)
    assert PartialSamples(tmp_path / "partial", "key").restore(found, generator) == 4
    np.testing.assert_array_equal(found[:4], samples[:4])
    anew = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(torch.randn(8, generator=generator), anew), "the noise of the first rows is not drawn again"


OTHER_STATES = {
    "lacks rows": lambda state: {key: value for key, value in state.items() if key != "rows"},
    "rows are text": lambda state: {**state, "rows": "4"},
    "more rows than asked for": lambda state: {**state, "rows": 7},
    "rows below 0": lambda state: {**state, "rows": -1},
    "lacks the random state": lambda state: {key: value for key, value in state.items() if key != "generator"},
    "random state of another type": lambda state: {**state, "generator": torch.zeros(5056)},
    "random state of noise": lambda state: {**state, "generator": torch.full_like(state["generator"], 255)},
    "another version": lambda state: {**state, "format": "samples 0"},
    "other samples": lambda state: {**state, "key": "other"},
}


@pytest.mark.parametrize("name", [*OTHER_STATES, "truncated", "rows that are not finite", "too few rows"])
def test_finished_rows_that_are_damaged_or_other_are_named_in_one_line_and_drawn_anew(name, tmp_path, caplog):
    samples = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    kept = PartialSamples(tmp_path / "partial", "key", seconds=0.0)
    kept.keep(samples, 4, torch.Generator().manual_seed(0), now=True)
    if name in OTHER_STATES:
        replace_torch(OTHER_STATES[name](load_checkpoint(kept.state_file)), kept.state_file)
    elif name == "truncated":
        kept.state_file.write_bytes(kept.state_file.read_bytes()[:100])
    elif name == "too few rows":
        kept.path.write_bytes(kept.path.read_bytes()[:20])
    else:
        np.full(12, np.nan, np.float32).tofile(kept.path)
    found, generator = np.zeros_like(samples), torch.Generator().manual_seed(3)
    with caplog.at_level("WARNING"):
        assert PartialSamples(tmp_path / "partial", "key").restore(found, generator) == 0
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().endswith("drawing starts anew")
    assert not found.any()
    anew = torch.randn(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.randn(8, generator=generator), anew)


def test_a_checkpoint_written_in_the_background_is_the_state_when_it_was_asked_for(tmp_path):
    weight = torch.zeros(1000)
    with BackgroundSaver(tmp_path / "resume.pt") as saver:
        saver.save({"weight": weight, "nested": [{"weight": weight}]})
        weight += 1
    saved = load_checkpoint(tmp_path / "resume.pt")
    assert not saved["weight"].any()
    assert not saved["nested"][0]["weight"].any()


def test_what_a_write_in_the_background_meets_is_not_lost(tmp_path):
    (tmp_path / "resume.pt").mkdir()  # where no file can be put
    with pytest.raises(OSError, match=r"resume\.pt"), BackgroundSaver(tmp_path / "resume.pt") as saver:
        saver.save({})
    with BackgroundSaver(tmp_path / "resume.pt") as saver:
        saver.save({})
        with pytest.raises(OSError, match=r"resume\.pt"):
            saver.save({})
    with pytest.raises(ValueError, match="first"), BackgroundSaver(tmp_path / "resume.pt") as saver:
        saver.save({})
        raise ValueError("what happened first is what is told")


def test_a_killed_policy_goes_on_from_between_two_evaluations(tmp_path, monkeypatch):
    config = PolicyConfig(max_timesteps=12, batch_size=8, eval_freq=10, n_episodes=2, checkpoint_seconds=0)
    config = type(config)(**{**vars(config), "learners": {"td3_bc": TD3BCConfig(hidden_dims=(8, 8))}})
    taken = []

    def evaluate(policy, seeds):
        weight = float(next(policy.actor.parameters()).detach().sum())
        return Evaluation(returns=np.full(len(seeds), weight), successes=np.zeros(len(seeds), bool))

    def run(folder):
        return _train_policy(config, evaluate, folder)

    def update(self, *args):
        taken.append(1)
        if len(taken) == 12 + 8:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(corl.run, "_BLOCK", 2)
    original = TD3BC.update
    monkeypatch.setattr(TD3BC, "update", update)
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert run(tmp_path / "cut") == whole
    assert len(taken) == 12 + 8 + 6, "six steps were written down"


def test_an_interrupted_or_killed_generation_ends_with_the_samples_of_one_that_was_not(tmp_path, monkeypatch):
    import diffusion.generate as module

    network = DenoiserConfig(hidden=8, depth=1, heads=1)
    config = TrainConfig(steps=2, small_batch_size=8, precision="float32")
    pool = Pool.of([random_transitions(64)], COMPOSUITE, timeouts_as_terminals=False)
    train(pool, network, config, tmp_path / "model.pt", seed=0, device=CPU)
    model = DiffusionModel.load(tmp_path / "model.pt", COMPOSUITE, CPU)
    sampler = SamplerConfig(steps=2, num_samples=35, batch_size=10)

    def run(key="k", seconds=1000.0):
        partial = PartialSamples(tmp_path / "partial", key, seconds=seconds)
        return module.generate(model, TASK.one_hot, sampler, seed=1, partial=partial)

    whole = module.generate(model, TASK.one_hot, sampler, seed=1)
    drawn, original = [], module.sample

    def sample(*arguments):
        drawn.append(1)
        if len(drawn) == 2:
            interrupt.request(15)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "sample", sample)
    with pytest.raises(interrupt.Interrupted):
        run()
    interrupt.clear()
    with pytest.raises(KeyboardInterrupt):
        run(seconds=0.0)
    np.testing.assert_array_equal(run(), whole)
    assert len(drawn) == 5, "the third batch was kept, the fourth was drawn again"
    np.testing.assert_array_equal(run("another key"), whole)
    assert len(drawn) == 9, "nothing was kept of what has another key"
    with (tmp_path / "partial").open("r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(run(), whole)
    assert len(drawn) == 13, "a file that was cut off counts for nothing"
