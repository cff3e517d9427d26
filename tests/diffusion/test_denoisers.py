"""All denoisers behind their one interface, and the names under which the pipeline finds them."""

import inspect

import numpy as np
import pytest
import torch

import scripts.automated_iterative_diffusion as all_mlp
import scripts.automated_iterative_diffusion_dits as all_dit
import scripts.automated_iterative_diffusion_dits_iiwa as iiwa_dit
import scripts.automated_iterative_diffusion_iiwa as iiwa_mlp
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import DENOISERS, DenoiserConfig, build
from diffusion.generate import generate
from diffusion.mlp import GRAPH, ElementMLP
from diffusion.model import DiffusionModel
from diffusion.pool import Pool
from diffusion.train import train
from offline_compositional_rl_datasets.composuite import AXES, COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.splits import load_split
from pipeline.loop.config import PipelineConfig, load_pipeline_config
from runtime.cli import parse_flags
from runtime.errors import ConfigError
from runtime.program import PROJECT_ROOT
from tests.benchmark_axes import benchmark_axes
from tests.recordings import random_transitions

SMALL = {
    "dit": DenoiserConfig(hidden=16, depth=2, heads=2),
    "dit_uniform": DenoiserConfig(kind="dit_uniform", hidden=16, depth=2, heads=2),
    "monolithic": DenoiserConfig(kind="monolithic", hidden=32, depth=2),
    "compositional": DenoiserConfig(kind="compositional", hidden=2, depth=2),
}
TASKS = [CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "Panda_Plate_GoalWall_Shelf")]


def _size(config):
    with torch.device("meta"):
        network = build(COMPOSUITE, config)
    return sum(parameter.numel() for parameter in network.parameters())


@benchmark_axes
@pytest.mark.parametrize(
    ("name", "published", "never_used"),
    [
        ("dit", 26_224_126, 0),
        ("DiT1D-XS", 7_668_030, 0),
        ("DiT1D-S", 22_375_998, 0),
        ("DiT1D-B", 58_504_510, 0),
        ("DiT1D-L", 173_720_382, 0),
        ("DiT1D-XL", 459_553_086, 0),
        ("dit_uniform", 25_790_767, 0),
        ("monolithic", 25_891_996, 2_788),
        ("compositional", 90_544_551, 2_132_468),
    ],
)
def test_parameter_counts_are_the_published_ones_less_layers_that_are_never_used(name, published, never_used):
    assert _size(DENOISERS[name].network) == published - never_used


@benchmark_axes
@pytest.mark.parametrize(
    ("patch", "published"),
    [(1, 25_779_105), (2, 25_779_938), (4, 25_781_604), (14, 25_789_934), (41, 25_812_425)],
)
def test_the_uniform_transformer_has_the_published_size_for_every_patch(patch, published):
    assert _size(DenoiserConfig(kind="dit_uniform", patch=patch)) == published


@benchmark_axes
@pytest.mark.parametrize(
    ("size", "published"),
    [((256, 6, 4), 7_442_191), ((384, 8, 6), 21_988_239), ((512, 12, 8), 57_922_063), ((768, 16, 12), 172_650_255)],
)
def test_the_uniform_transformer_has_the_published_size_at_every_scale(size, published):
    hidden, depth, heads = size
    assert _size(DenoiserConfig(kind="dit_uniform", hidden=hidden, depth=depth, heads=heads)) == published


def _randomised(kind):
    torch.manual_seed(0)
    network = build(COMPOSUITE, SMALL[kind])
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_of_several_tasks_equals_its_tasks_one_at_a_time(kind):
    network, x = _randomised(kind), torch.randn(4, 164)
    conditions = torch.from_numpy(np.stack([TASKS[i % 2].one_hot for i in range(4)]))
    levels = torch.tensor([-1.0, -0.5, 0.0, 0.7])
    mixed = network(x, levels, conditions)
    assert mixed.shape == (4, 164)
    for i in range(4):
        alone = network(x[i : i + 1], levels[i : i + 1], conditions[i : i + 1])
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(network(x, levels, conditions[:1]), network(x, levels, conditions[1:2])), "task is used"
    assert not torch.allclose(network(x, levels, conditions), network(x, levels + 0.3, conditions)), "noise is used"


@pytest.mark.parametrize("kind", SMALL)
def test_all_parameters_take_part_in_training(kind):
    network = _randomised(kind)
    count = max(map(len, AXES.values()))  # tasks that show every element
    tasks = [
        CompoSuiteTask(**{axis: elements[i % len(elements)] for axis, elements in AXES.items()}) for i in range(count)
    ]
    conditions = torch.from_numpy(np.stack([task.one_hot for task in tasks]))
    network(torch.randn(count, 164), torch.linspace(-1, 1, count), conditions).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        if kind != "compositional" or not name.endswith("mix.weight"):
            assert parameter.grad.abs().sum() > 0, name


def test_the_hard_coded_graph_ends_in_a_plain_layer_as_published():
    assert [node.factor for node in GRAPH] == ["obstacle", "object", "goal", "proprioception"]
    mlp = ElementMLP(4, (8, 6, 5), linear_end=True)
    one_hot = torch.eye(4)[[0, 2]]
    out = mlp(torch.randn(2, 3, 8), one_hot)
    assert out.shape == (2, 3, 5)
    assert len(mlp.norms) == 1, "the last layer is linear"
    assert mlp.layers[1].weight.abs().max() <= 0.003


@pytest.mark.parametrize("kind", SMALL)
def test_every_denoiser_trains_is_loaded_and_gives_samples(kind, tmp_path):
    pool = Pool.of(
        [random_transitions(60, task, seed=i) for i, task in enumerate(TASKS)], COMPOSUITE, timeouts_as_terminals=False
    )
    config = TrainConfig(steps=20, small_batch_size=16, log_freq=10, precision="float32")
    path = tmp_path / "model.pt"
    train(pool, SMALL[kind], config, path, seed=0, device=torch.device("cpu"))
    model = DiffusionModel.load(path, COMPOSUITE, torch.device("cpu"))
    assert type(model.network) is type(build(COMPOSUITE, SMALL[kind]))
    sampler = SamplerConfig(solver="dpmpp_2m", steps=3, num_samples=10, batch_size=10)
    assert generate(model, TASKS[0].one_hot, sampler, seed=0).shape == (10, 164)


def test_a_denoisers_name_stands_for_its_network_and_its_published_training():
    for name, preset in DENOISERS.items():
        config = load_pipeline_config(None, {"denoiser": name})
        assert config.network == preset.network
    mlp, dit = (load_pipeline_config(None, {"denoiser": name}) for name in ("monolithic", "dit"))
    assert (mlp.training.learning_rate, mlp.training.weight_decay, mlp.sampling.batch_size) == (3e-4, 0.0, 100_000)
    assert (dit.training.learning_rate, dit.training.weight_decay, dit.sampling.batch_size) == (1e-4, 0.01, 25_000)


def test_a_file_overrides_a_part_of_the_names_network(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("denoiser: monolithic\nnetwork: {hidden: 64}\n")
    assert load_pipeline_config(file, {}).network == DenoiserConfig(kind="monolithic", hidden=64, depth=6)
    with pytest.raises(ConfigError, match="denoiser 'dit': its network has the kind dit, not monolithic"):
        PipelineConfig(network=DENOISERS["monolithic"].network)
    with pytest.raises(ConfigError, match="kind 'mlp': expected one of dit, dit_uniform, monolithic, compositional"):
        DenoiserConfig(kind="mlp")


@pytest.mark.parametrize(
    ("script", "denoiser", "num_train", "split"),
    [
        (iiwa_dit, "dit", 14, "component-wise"),
        (iiwa_mlp, "monolithic", 14, "component-wise"),
        (all_dit, "dit", 56, "default"),
        (all_mlp, "monolithic", 56, "default"),
    ],
    ids=["dits_iiwa", "iiwa", "dits", "all"],
)
def test_the_entry_points_are_one_program_with_other_defaults(script, denoiser, num_train, split, monkeypatch, capsys):
    opened = []

    monkeypatch.setattr("pipeline.loop.runner.carry_out", lambda run, observers: opened.append(run.config))
    parse_flags(script.main, [])
    parse_flags(script.main, ["--denoiser", "compositional", "--num_train", "3"])
    assert (opened[0].denoiser, opened[0].num_train, opened[0].experiment_type) == (denoiser, num_train, split)
    assert opened[0].network == DENOISERS[denoiser].network
    assert (opened[1].denoiser, opened[1].num_train, opened[1].network.kind) == ("compositional", 3, "compositional")
    assert list(inspect.signature(script.main).parameters) == list(inspect.signature(iiwa_dit.main).parameters)
    with pytest.raises(SystemExit):
        parse_flags(script.main, ["--help"])
    assert f"(default: {denoiser})" in " ".join(capsys.readouterr().out.split())
    folder = PROJECT_ROOT / "offline_compositional_rl_datasets" / "_train_test_splits"
    tasks = load_split(CompoSuiteTask, folder, split, 0)
    assert len(tasks.train) >= num_train
