"""Training over several processes, from streamed data and in bfloat16 is the same training."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from diffusion.config import TrainConfig
from diffusion.distributed import World, spawn
from diffusion.loader import BatchLoader
from diffusion.normalizer import Normalizer
from diffusion.pool import Pool
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime import interrupt
from runtime.errors import ConfigError
from runtime.metrics import read_metrics
from tests.diffusion.test_diffusion import CPU, SMALL, TASKS
from tests.recordings import random_transitions

CONFIG = TrainConfig(steps=30, small_batch_size=16, log_freq=5, precision="float32", warmup_steps=3)


@pytest.fixture(scope="module")
def pool():
    return Pool.of(
        [random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], COMPOSUITE, timeouts_as_terminals=False
    )


def _run(pool, folder, config=CONFIG, denoiser=SMALL):
    torch.set_num_threads(1)
    train(pool, denoiser, config, folder / "model.pt", seed=0, device=CPU)


def _losses(folder):
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


def _run_until_one_is_asked(pool, folder):
    update, calls = torch.optim.AdamW.step, []

    def step(self, *arguments):
        calls.append(None)
        if len(calls) == 7 and World.of_environment().rank == 1:
            interrupt.request(15)
        return update(self, *arguments)

    torch.optim.AdamW.step = step
    _run(pool, folder)


def test_two_processes_learn_the_state_first_as_one_does(pool, tmp_path):
    network = dataclasses.replace(SMALL, order="state_first")
    for world, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        spawn(_run, world, pool, folder, CONFIG, network)
    np.testing.assert_allclose(_losses(tmp_path / "one"), _losses(tmp_path / "two"), rtol=1e-4)


def test_two_processes_give_the_loss_curve_of_one_also_when_one_of_them_is_asked_to_stop(pool, tmp_path):
    _run(pool, tmp_path / "one")
    spawn(_run_until_one_is_asked, 2, pool, tmp_path / "two")
    resume = torch.load(tmp_path / "two" / "resume.pt", weights_only=True)
    assert resume["step"] == 10, "they stop together, at the next step at which they are joined"
    spawn(_run, 2, pool, tmp_path / "two")
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == 6
    np.testing.assert_allclose(one, two, rtol=1e-4)
    a, b = (torch.load(tmp_path / name / "model.pt", weights_only=True)["ema"] for name in ("one", "two"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-4, rtol=1e-3)


def _wait_until_asked(folder):
    (folder / f"ready{World.of_environment().rank}").touch()
    deadline = time.monotonic() + 60
    while not interrupt.requested():
        assert time.monotonic() < deadline, "nobody asked"
        time.sleep(0.02)
    raise interrupt.Interrupted


def test_a_request_to_stop_reaches_every_process(tmp_path):
    def ask():
        while len(list(tmp_path.glob("ready*"))) < 2:
            time.sleep(0.02)
        interrupt.request(15)

    threading.Thread(target=ask, daemon=True).start()
    try:
        with pytest.raises(interrupt.Interrupted):
            spawn(_wait_until_asked, 2, tmp_path)
    finally:
        interrupt.clear()


def test_processes_share_a_batch_without_overlap_and_must_divide_it(pool, tmp_path, monkeypatch):
    values = torch.arange(12)
    parts = [World(rank, 3).shard(values) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(12))
    monkeypatch.setattr(World, "of_environment", classmethod(lambda cls, device: World(0, 3, device)))
    monkeypatch.setattr(World, "joined", lambda self: __import__("contextlib").nullcontext())
    with pytest.raises(ConfigError, match="batch_size 16: expected a multiple of the 3 processes"):
        _run(pool, tmp_path)


def test_streamed_batches_are_those_of_a_resident_pool_and_go_on_where_they_were(pool):
    normalizer = Normalizer.fit(torch.from_numpy(pool.matrix), COMPOSUITE, delta_next=True)
    resident, streamed = (BatchLoader(pool, normalizer, 8, seed=3, resident=resident) for resident in (True, False))
    whole = [(y.clone(), c.clone()) for y, c in resident.batches(0, 10)]
    everything = normalizer.normalize(torch.from_numpy(pool.matrix))
    conditions = torch.from_numpy(pool.conditions)[torch.from_numpy(pool.task_index)]
    for y, condition in whole:
        for row, c in zip(y, condition, strict=True):
            matches = (everything - row).abs().amax(dim=1) < 1e-5
            assert matches.any()
            assert (conditions[matches] == c).all(dim=1).any()
    stream = streamed.batches(0, 10)
    for expected in whole[:4]:
        assert all(map(torch.equal, next(stream), expected))
    stream.close()
    for batch, expected in zip(streamed.batches(4, 10), whole[4:], strict=True):
        assert all(map(torch.equal, batch, expected))
    other = next(BatchLoader(pool, normalizer, 8, seed=4).batches(0, 1))
    assert not torch.equal(other[0], whole[0][0])


def test_the_network_is_the_same_whether_the_pool_is_on_the_device_or_streamed(pool, tmp_path, monkeypatch):
    _run(pool, tmp_path / "resident")
    monkeypatch.setattr("diffusion.loader.fits", lambda size, device: False)
    _run(pool, tmp_path / "streamed")
    assert _losses(tmp_path / "streamed") == _losses(tmp_path / "resident")
    one, two = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("resident", "streamed"))
    assert (one["resident"], two["resident"]) == (True, False)
    for name, value in one["ema"].items():
        assert torch.equal(value, two["ema"][name]), name


def test_training_in_bfloat16_has_the_loss_of_float32_within_noise(tmp_path):
    parts = [random_transitions(200, task, seed=i) for i, task in enumerate(TASKS)]
    for part in parts:  # all of one number, which is what there is to learn
        part.states[:] = part.states[:, :1]
        part.next_states[:] = part.states
    pool = Pool.of(parts, COMPOSUITE, canonical_quaternions=False, timeouts_as_terminals=False)
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(
            steps=120, small_batch_size=64, learning_rate=3e-3, P_mean=0.0, log_freq=40, precision=precision
        )
        _run(pool, tmp_path / precision, config)
        losses[precision] = _losses(tmp_path / precision)
    assert losses["float32"][-1] < 0.8 * losses["float32"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)
    assert losses["bfloat16"] != losses["float32"]
    weights = torch.load(tmp_path / "bfloat16" / "model.pt", weights_only=True)["model"]
    assert all(value.dtype == torch.float32 for value in weights.values()), "master weights stay float32"
