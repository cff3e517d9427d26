import dataclasses
import functools
import weakref

import numpy as np
import pytest
import torch

from diffusion import edm
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DenoiserConfig
from diffusion.dit import SemanticDiT, attend
from diffusion.ema import EMA
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from diffusion.normalizer import Normalizer, scales
from diffusion.pool import Pool
from diffusion.samplers import evaluations, noise_levels, sample
from diffusion.train import dimension_weights, learning_rate, parameter_groups, train
from offline_compositional_rl_datasets.composuite import COMPOSUITE, OBJECTS, CompoSuiteTask
from runtime.errors import ConfigError, DataError
from tests.benchmark_axes import benchmark_axes
from tests.recordings import random_transitions

CPU = torch.device("cpu")
SMALL = DenoiserConfig(hidden=16, depth=2, heads=2)
TASKS = [CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Plate_GoalWall_Shelf")]


@pytest.fixture
def pool():
    return Pool.of(
        [random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], COMPOSUITE, timeouts_as_terminals=False
    )


@benchmark_axes
@pytest.mark.parametrize(
    ("size", "parameters"),
    [((416, 8, 8), 26_224_126), ((256, 6, 4), 7_668_030), ((384, 8, 6), 22_375_998), ((512, 12, 8), 58_504_510)],
)
def test_parameter_counts_are_those_of_the_published_models(size, parameters):
    hidden, depth, heads = size
    with torch.device("meta"):
        network = SemanticDiT(COMPOSUITE, DenoiserConfig(hidden=hidden, depth=depth, heads=heads))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_untrained_network_gives_zero_and_a_loss_of_about_one():
    network = SemanticDiT(COMPOSUITE, SMALL)
    y = torch.randn(4096, 164)
    condition = torch.from_numpy(TASKS[0].one_hot).expand(4096, -1)
    assert network(y, torch.zeros(4096), condition).abs().max() == 0
    loss = edm.EDMLoss()(network, y, condition, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(1.0, abs=0.03)


def _randomised():
    torch.manual_seed(0)
    network = SemanticDiT(COMPOSUITE, SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_one_task_for_the_batch_equals_the_same_task_per_sample():
    network, x = _randomised(), torch.randn(6, 164)
    condition = torch.from_numpy(TASKS[1].one_hot)[None]
    each = network(x, torch.zeros(6), condition.expand(6, -1))
    torch.testing.assert_close(network(x, torch.zeros(1), condition), each)


def test_a_mixed_batch_equals_its_tasks_one_at_a_time():
    network, x = _randomised(), torch.randn(4, 164)
    conditions = torch.from_numpy(np.stack([TASKS[i % 2].one_hot for i in range(4)]))
    mixed = network(x, torch.zeros(4), conditions)
    for i in range(4):
        torch.testing.assert_close(mixed[i : i + 1], network(x[i : i + 1], torch.zeros(1), conditions[i : i + 1]))


def test_elements_have_encoders_of_their_own_shared_by_state_and_next_state():
    network = _randomised()
    condition = torch.from_numpy(TASKS[0].one_hot)[None].requires_grad_(False)
    network(torch.randn(2, 164), torch.zeros(1), condition).sum().backward()
    used = TASKS[0].index("object")
    gradient = network.encoders["object"].weight.grad
    assert gradient[used].abs().sum() > 0
    assert all(gradient[i].abs().sum() == 0 for i in range(len(OBJECTS)) if i != used)
    assert set(network.encoders) == {"object", "obstacle", "goal", "proprioception", "action", "reward", "terminal"}


def test_the_written_out_attention_equals_the_fused_one():
    q, k, v = torch.randn(3, 5, 2, 11, 8)
    torch.testing.assert_close(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_weighing_dimensions_leaves_the_mean_weight_at_one():
    assert dimension_weights(TrainConfig(), COMPOSUITE) is None
    weights = dimension_weights(TrainConfig(action_weight=5.0, next_weight=0.3), COMPOSUITE)
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights[COMPOSUITE.action] / weights[COMPOSUITE.reward]).allclose(torch.tensor(5.0))
    assert (weights[COMPOSUITE.next_state] / weights[COMPOSUITE.reward]).allclose(torch.tensor(0.3))


def test_only_biases_escape_weight_decay():
    network = SemanticDiT(COMPOSUITE, SMALL)
    decayed, free = parameter_groups(network, 0.01)
    named = dict(network.named_parameters())
    assert len(decayed["params"]) + len(free["params"]) == len(named)
    goal = named["encoders.goal.weight"]
    assert any(parameter is goal for parameter in decayed["params"])


def test_preconditioning_has_the_limits_of_the_paper():
    x = torch.randn(3, 164)

    def network(scaled, c_noise, condition):
        return torch.ones_like(scaled)

    # Without noise the input is the answer; with much noise it is what the network says, times sigma_data.
    small = edm.denoise(network, x, torch.full((3,), 1e-4), torch.zeros(3, COMPOSUITE.condition_dim))
    torch.testing.assert_close(small, x, atol=1e-3, rtol=0)
    large = edm.denoise(network, x, torch.full((3,), 1e4), torch.zeros(3, COMPOSUITE.condition_dim))
    torch.testing.assert_close(large, torch.ones(3, 164), atol=1e-3, rtol=0)


def test_every_dimension_is_preconditioned_by_its_own_scale():
    x, sigma = torch.randn(3, 164), torch.tensor([0.01, 0.3, 5.0])
    scale = scales(COMPOSUITE, 0.1)
    assert sorted(scale.unique().tolist()) == pytest.approx([0.1, 1.0])
    seen = []

    def network(scaled, c_noise, condition):
        seen.append(scaled)
        return torch.ones_like(scaled)

    together = edm.denoise(network, x, sigma, torch.zeros(3, COMPOSUITE.condition_dim), scale)
    for value in (1.0, 0.1):
        columns = torch.isclose(scale, torch.tensor(value))
        alone = edm.denoise(network, x, sigma, torch.zeros(3, COMPOSUITE.condition_dim), value)
        torch.testing.assert_close(together[:, columns], alone[:, columns])
    # What the network sees of data with these scales and noise on top has variance 1.
    y = scale * torch.randn(20_000, 164)
    noisy, condition = y + 0.1 * torch.randn_like(y), torch.zeros(1, COMPOSUITE.condition_dim)
    edm.denoise(network, noisy, torch.full((20_000,), 0.1), condition, scale)
    assert (seen[-1].std(dim=0) - 1).abs().max() < 0.03


MEAN, STD = 0.7, 0.4


def _gaussian_denoiser(x, sigma):
    """The exact denoiser of data N(MEAN, STD^2)."""
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


@pytest.mark.parametrize(
    ("solver", "steps"), [("heun_churn", 64), ("heun", 32), ("dpmpp_2m", 32)], ids=lambda value: str(value)
)
def test_every_solver_samples_a_gaussian_exactly_enough(solver, steps):
    generator = torch.Generator().manual_seed(0)
    config = SamplerConfig(solver=solver, steps=steps)
    x = sample(_gaussian_denoiser, torch.randn((20_000, 2), generator=generator), config, generator)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(STD, abs=0.02)


def test_deterministic_solvers_converge_to_the_exact_flow():
    noise = torch.randn((100, 3), generator=torch.Generator().manual_seed(1))
    # The flow of a Gaussian keeps standardised coordinates: x_0 = mean + std z for x_T = sigma_max noise.
    for solver, steps in (("heun", 100), ("dpmpp_2m", 400)):
        config = SamplerConfig(solver=solver, steps=steps)
        x_T = 80.0 * noise
        exact = MEAN + STD * (x_T - MEAN) / np.sqrt(STD**2 + 80.0**2)
        x = sample(_gaussian_denoiser, noise, config, torch.Generator())
        torch.testing.assert_close(x, exact, atol=5e-3, rtol=0)


def test_the_published_sampler_has_255_evaluations_from_80_to_0():
    config = SamplerConfig()
    levels = noise_levels(config)
    assert evaluations(config) == 255
    assert (len(levels), levels[-1]) == (129, 0.0)
    assert levels[0] == pytest.approx(80.0)
    assert levels[-2] == pytest.approx(0.002)


def test_normalising_and_back_gives_the_same_transitions(pool):
    matrix = torch.from_numpy(pool.matrix)
    for delta in (False, True):
        normalizer = Normalizer.fit(matrix, COMPOSUITE, delta_next=delta, std_offset=1e-5)
        x = normalizer.normalize(matrix)
        torch.testing.assert_close(normalizer.denormalize(x), matrix, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(x[:, COMPOSUITE.terminal], matrix[:, COMPOSUITE.terminal])
        others = [i for i in range(164) if i != COMPOSUITE.terminal]
        assert x[:, others].mean(dim=0).abs().max() < 1e-3


@pytest.mark.parametrize("delta", [False, True])
def test_normalising_in_blocks_is_normalising_the_whole(pool, delta, monkeypatch):
    matrix = torch.from_numpy(pool.matrix)
    shifted = matrix.clone()
    if delta:
        shifted[:, COMPOSUITE.next_state] -= matrix[:, COMPOSUITE.state]
    monkeypatch.setattr("diffusion.normalizer.BLOCK_ROWS", 7)
    normalizer = Normalizer.fit(matrix, COMPOSUITE, delta_next=delta, standardise_terminal=True)
    torch.testing.assert_close(normalizer.mean, shifted.double().mean(dim=0).float())
    torch.testing.assert_close(normalizer.std, (shifted.double().std(dim=0) + 1e-5).float())
    assert torch.equal(normalizer.normalize_to(matrix, CPU), normalizer.normalize(matrix))


def test_a_dimension_that_does_not_vary_is_not_divided_by_nothing(pool):
    matrix = torch.from_numpy(pool.matrix)
    matrix[:, 3] = 0.5
    with pytest.raises(ConfigError, match=r"std_offset 1e-60: expected more, the pool is constant in a dimension"):
        Normalizer.fit(matrix, COMPOSUITE, std_offset=1e-60)
    assert torch.isfinite(Normalizer.fit(matrix, COMPOSUITE).normalize(matrix)).all()


def test_a_pool_of_parts_that_are_given_up_is_the_same_and_keeps_none(pool):
    parts = [random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)]
    kept = [weakref.ref(part) for part in parts]

    def given_up():
        while parts:
            yield parts.pop(0)

    other = Pool.of(given_up(), COMPOSUITE, rows=120, timeouts_as_terminals=False)
    for name in ("matrix", "task_index", "conditions"):
        np.testing.assert_array_equal(getattr(other, name), getattr(pool, name))
    assert all(part() is None for part in kept)


def test_the_average_copies_first_and_then_lags_behind():
    network = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(network, decay=0.995, every=10)
    for step in range(1, 200):
        with torch.no_grad():
            network.weight.fill_(float(step))
        ema.update(step)
        if step == 100:
            assert ema.model.weight.item() == 100
    assert 100 < ema.model.weight.item() < 190
    assert ema.rate(10**9) == 0.995


def test_the_learning_rate_is_a_cosine_to_zero():
    config = TrainConfig(steps=100, learning_rate=2.0)
    assert learning_rate(0, config) == 2.0
    assert learning_rate(50, config) == pytest.approx(1.0)
    assert learning_rate(99, config) < 1e-3


CONFIG = TrainConfig(steps=30, small_batch_size=16, log_freq=10, checkpoint_seconds=0.0, precision="float32")


class KilledError(Exception):
    """Stands for the process being killed."""


def _train(pool, path, seed=0):
    train(pool, SMALL, CONFIG, path, seed=seed, device=CPU)
    return torch.load(path, weights_only=True)


def test_a_killed_training_resumes_to_the_same_network(pool, tmp_path, monkeypatch):
    whole = _train(pool, tmp_path / "whole" / "model.pt")
    from diffusion import train as module

    real, calls = module.train_step, []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) == 24:
            raise KilledError
        return real(*arguments, **options)

    monkeypatch.setattr(module, "train_step", dying)
    path = tmp_path / "killed" / "model.pt"
    with pytest.raises(KilledError):
        _train(pool, path)
    assert not path.exists()
    left_at = torch.load(path.with_name("resume.pt"), weights_only=True)["step"]
    assert 0 < left_at <= 23
    calls.extend([1] * 100)
    resumed = _train(pool, path)
    assert len(calls) - 124 == 30 - left_at, "resumes where the checkpoint was, not from the start"
    for part in ("model", "ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), name
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_a_training_that_diverges_ends_when_that_shows(pool, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30, checkpoint_seconds=1000)
    with pytest.raises(
        DataError, match=f"{tmp_path}: the loss is not finite at step 10; learn with a smaller learning_rate"
    ):
        train(pool, SMALL, config, tmp_path / "m.pt", seed=0, device=CPU)
    assert not (tmp_path / "m.pt").exists()


def test_training_is_decided_by_its_seed(pool, tmp_path):
    first, again, other = (
        _train(pool, tmp_path / name / "m.pt", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    weight = "blocks.0.mlp.0.weight"
    assert torch.equal(first["model"][weight], again["model"][weight])
    assert not torch.equal(first["model"][weight], other["model"][weight])


def test_samples_are_decided_by_their_seed(pool, tmp_path):
    _train(pool, tmp_path / "m.pt")
    model = DiffusionModel.load(tmp_path / "m.pt", COMPOSUITE, CPU)
    config = SamplerConfig(solver="dpmpp_2m", steps=3, num_samples=25, batch_size=10)
    a, again, b = (generate(model, TASKS[0].one_hot, config, seed=seed) for seed in (5, 5, 6))
    assert a.shape == (25, 164)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, again)
    assert not np.array_equal(a, b)


def test_the_small_model_learns_the_distribution_it_is_shown(tmp_path):
    """Two tasks with different constant actions: after a short training, generated actions tell them apart."""
    parts = []
    for i, task in enumerate(TASKS):
        data = random_transitions(400, task, seed=i)
        data.actions[:] = 0.8 if i else -0.8
        parts.append(data)
    config = TrainConfig(
        steps=600, small_batch_size=64, learning_rate=3e-3, ema_every=1, ema_decay=0.98, precision="float32"
    )
    pool = Pool.of(parts, COMPOSUITE, timeouts_as_terminals=False)
    train(pool, SMALL, config, tmp_path / "m.pt", seed=0, device=CPU)
    model = DiffusionModel.load(tmp_path / "m.pt", COMPOSUITE, CPU)
    sampler = SamplerConfig(solver="dpmpp_2m", steps=12, num_samples=100, batch_size=100)
    for task, expected in zip(TASKS, (-0.8, 0.8), strict=True):
        actions = generate(model, task.one_hot, sampler, seed=0)[:, COMPOSUITE.action]
        assert abs(actions.mean() - expected) < 0.1


def test_a_checkpoint_that_is_none_is_named(tmp_path):
    with pytest.raises(DataError, match="no such checkpoint"):
        DiffusionModel.load(tmp_path / "absent.pt", COMPOSUITE, CPU)
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"bad\.pt: not a readable checkpoint"):
        DiffusionModel.load(tmp_path / "bad.pt", COMPOSUITE, CPU)


def test_an_empty_pool_is_refused():
    with pytest.raises(DataError, match="empty"):
        Pool.of([], COMPOSUITE, timeouts_as_terminals=False)


def test_a_warm_start_begins_with_the_average_weights(pool, tmp_path):
    config = TrainConfig(steps=4, small_batch_size=16, precision="float32")
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    train(pool, SMALL, config, first, seed=0, device=CPU)
    still = dataclasses.replace(config, steps=1, learning_rate=1e-12)
    train(pool, SMALL, still, second, seed=1, device=CPU, initial=first)
    before, after = (torch.load(path, weights_only=True) for path in (first, second))
    assert any((before["model"][name] != before["ema"][name]).any() for name in before["ema"])
    for name, weight in after["model"].items():
        torch.testing.assert_close(weight, before["ema"][name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("network", "training", "message"),
    [
        ({"hidden": 24}, {}, r"first\.pt: its generator has hidden 16 \(expected 24\); a warm start"),
        ({"kind": "dit_uniform"}, {}, r"kind dit \(expected dit_uniform\)"),
        ({"time_scale": 9.0}, {}, r"time_scale 1\.0 \(expected 9\.0\)"),
        ({}, {"follow_scale": 0.1, "delta_next": True}, r"delta_next False \(expected True\), follow_scale 1\.0 \(exp"),
    ],
)
def test_a_warm_start_from_another_network_or_other_scales_is_refused(network, training, message, pool, tmp_path):
    config = TrainConfig(steps=1, small_batch_size=16, precision="float32")
    first = tmp_path / "first.pt"
    train(pool, SMALL, config, first, seed=0, device=CPU)
    other, asked = dataclasses.replace(SMALL, **network), dataclasses.replace(config, **training)
    with pytest.raises(ConfigError, match=message):
        train(pool, other, asked, tmp_path / "second.pt", seed=0, device=CPU, initial=first)
    torch.save({"model": {}}, tmp_path / "foreign.pt")
    with pytest.raises(DataError, match=r"foreign\.pt: lacks ema, .*expected the checkpoint of a generator"):
        train(pool, SMALL, config, tmp_path / "x.pt", seed=0, device=CPU, initial=tmp_path / "foreign.pt")


def test_training_compiles_the_called_network_in_one_graph(pool, tmp_path, monkeypatch):
    # The backend traces as the default one does, without its minute of generating code.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    counters = torch._dynamo.utils.counters
    weights = {}
    for compiled in (False, True):
        counters.clear()
        config = TrainConfig(steps=3, small_batch_size=16, precision="float32", compile=compiled)
        path = tmp_path / f"{compiled}.pt"
        train(pool, DenoiserConfig(hidden=8, depth=1, heads=1), config, path, seed=0, device=CPU)
        assert (counters["frames"]["ok"] > 0) is compiled
        assert not counters["graph_break"]
        weights[compiled] = torch.load(path, weights_only=True)["model"]
    for name, weight in weights[True].items():
        torch.testing.assert_close(weight, weights[False][name])
