"""Several generators as one: equal shares of states, and the mean of what they expect."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.conditional import given_states
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.ensemble import expected_by_all, generate_by_all
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from diffusion.pool import Pool
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from runtime.seeds import derive_seed
from tests.recordings import random_transitions

TASK = CompoSuiteTask.parse("IIWA_Box_None_Push")
SAMPLER = SamplerConfig(solver="dpmpp_2m", steps=3, num_samples=7, batch_size=4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[DiffusionModel]:
    folder, cpu = tmp_path_factory.mktemp("generators"), torch.device("cpu")
    pool = Pool.of([random_transitions(60, task=TASK)], COMPOSUITE, timeouts_as_terminals=False)
    network = DenoiserConfig(hidden=16, depth=1, heads=2, order="state_first")
    config = TrainConfig(steps=8, small_batch_size=16, learning_rate=1e-2, precision="float32", ema_every=1)
    for seed in range(3):
        train(pool, network, config, folder / f"{seed}.pt", seed=seed, device=cpu)
    return [DiffusionModel.load(folder / f"{seed}.pt", COMPOSUITE, cpu) for seed in range(3)]


def test_what_all_expect_is_the_mean_in_the_same_states(models: list[DiffusionModel]) -> None:
    states = random_transitions(5, task=TASK).states
    each = [given_states(model, states, TASK.one_hot, state_noise=0.2) for model in models]
    found = expected_by_all(models, states, TASK.one_hot, state_noise=0.2)
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-6)
    np.testing.assert_allclose(found[:, COMPOSUITE.state], each[0][:, COMPOSUITE.state], atol=1e-6)
    assert np.abs(each[0][:, COMPOSUITE.action] - found[:, COMPOSUITE.action]).max() > 1e-3, "they differ"


def test_states_come_from_all_in_equal_shares_and_labels_are_the_mean(models: list[DiffusionModel]) -> None:
    found = generate_by_all(models, TASK.one_hot, SAMPLER, seed=5, partials=[None] * 3)
    seeds, counts = (5, derive_seed("generator", 5, 1), derive_seed("generator", 5, 2)), (2, 2, 3)
    drawn = [
        generate(model, TASK.one_hot, dataclasses.replace(SAMPLER, num_samples=count), seed=seed)
        for model, seed, count in zip(models, seeds, counts, strict=True)
    ]
    states = np.concatenate(drawn)[:, COMPOSUITE.state]
    expected = expected_by_all(models, states, TASK.one_hot, state_noise=SAMPLER.state_noise)
    np.testing.assert_array_equal(found, expected)


def test_one_generator_alone_generates_as_ever(models: list[DiffusionModel], tmp_path: Path) -> None:
    alone = generate_by_all(models[:1], TASK.one_hot, SAMPLER, seed=5, partials=[None])
    np.testing.assert_array_equal(alone, generate(models[0], TASK.one_hot, SAMPLER, seed=5))
