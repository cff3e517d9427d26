"""Attention maps and interventions of a tiny generator whose dependencies are known."""

import csv

import numpy as np
import pytest
import torch

from diffusion.attention import attention_maps, attention_weights, own_samples, recorded
from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig, build
from diffusion.dit import attend
from diffusion.interventions import axis_matrix, swap_ids, swap_tokens, token_changes
from diffusion.model import DiffusionModel
from diffusion.normalizer import Normalizer
from diffusion.pool import Pool
from diffusion.train import train
from envs.family import find_family
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.analysis.inspection import Inspection, conditions_of
from runtime.errors import ConfigError
from scripts.attention_maps import main as attention_script
from scripts.intervene import main as intervene_script

CPU = torch.device("cpu")
TASKS = ("IIWA_Box_None_Push", "IIWA_Plate_None_Shelf", "IIWA_Box_GoalWall_Shelf")
CONDITIONS = {name: CompoSuiteTask.parse(name).one_hot for name in TASKS}


def _model(kind="dit", **sizes):
    torch.manual_seed(0)
    network = build(COMPOSUITE, DenoiserConfig(kind=kind, hidden=16, depth=2, heads=2, **sizes)).eval()
    for parameter in network.parameters():  # a fresh network is all but zero behind its closed gates
        torch.nn.init.normal_(parameter, std=0.2)
    network.requires_grad_(False)
    normalizer = Normalizer(torch.zeros(164), torch.ones(164), COMPOSUITE, delta_next=False)
    return DiffusionModel(network, normalizer, torch.tensor(1.0), 0, "float32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A generator trained for a few steps on noise of two tasks."""
    path = tmp_path_factory.mktemp("model") / "model-4.pt"
    random = np.random.default_rng(0)
    parts = []
    for name in TASKS[:2]:
        matrix = random.standard_normal((64, 164)).astype(np.float32)
        parts.append(Transitions.from_matrix(matrix, CompoSuiteTask.parse(name), COMPOSUITE))
    pool = Pool.of(parts, COMPOSUITE, canonical_quaternions=False, timeouts_as_terminals=True)
    config = TrainConfig(steps=4, small_batch_size=16, precision="float32")
    train(pool, DenoiserConfig(hidden=16, depth=2, heads=2), config, path, seed=0, device=CPU, info={})
    return path


def test_recorded_attention_is_what_the_network_computes_with():
    model = _model()
    attention, x = model.network.blocks[0].attention, torch.randn(3, 11, 16)
    weights = attention_weights(attention, x)
    q, k, v = attention.qkv(x).view(3, 11, 3, 2, 8).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(weights @ v, attend(q, k, v))
    with recorded(model.network) as seen:
        model.network(torch.randn(5, 164), torch.zeros(1), torch.from_numpy(CONDITIONS[TASKS[0]])[None])
    assert [layer.shape for layer in seen] == [(2, 11, 11)] * 2
    model.network(torch.randn(5, 164), torch.zeros(1), torch.from_numpy(CONDITIONS[TASKS[0]])[None])
    assert len(seen) == 2, "nothing is recorded once it is closed"


def test_attention_maps_have_rows_that_sum_to_one_and_average_over_the_tasks_of_an_element():
    model = _model()
    samples = own_samples(model, CONDITIONS, 8)
    maps = attention_maps(model, samples, CONDITIONS, sigmas=(0.1, 1.0))
    assert maps.weights.shape == (3, 2, 2, 2, 11, 11)
    np.testing.assert_allclose(maps.weights.sum(axis=-1), 1.0, rtol=1e-4)
    by_element = maps.by_element()
    assert ("object", "Dumbbell") not in by_element
    np.testing.assert_allclose(by_element["object", "Box"], maps.weights[[0, 2]].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(by_element["objective", "Push"], maps.weights[0], rtol=1e-5)


def test_an_id_changes_nothing_but_its_tokens_in_a_network_without_mixing_and_modulation():
    model = _model()
    for block in model.network.blocks:
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)  # gates closed: tokens pass each by itself
    torch.nn.init.zeros_(model.network.final_modulation.weight)
    changes = axis_matrix(swap_ids(model, CONDITIONS, 8))
    assert set(changes) == {"object", "obstacle", "objective", "noise"}, "the robot has one element"
    assert (changes["noise"] > 0).all()
    names = [token.name for token in COMPOSUITE.tokens]
    for axis, factor in (("object", "object"), ("obstacle", "obstacle"), ("objective", "goal")):
        changed = {name for name, value in zip(names, changes[axis], strict=True) if value > 0}
        assert changed == {f"s_{factor}", f"next_{factor}"}


def test_an_exchanged_token_changes_its_own_estimate_alone_where_tokens_do_not_mix():
    model = _model()
    samples = own_samples(model, CONDITIONS, 8)
    mixed = swap_tokens(model, samples, CONDITIONS, sigmas=(1.0,))[0]
    assert (mixed > 0).all()
    for block in model.network.blocks:
        torch.nn.init.zeros_(block.modulation.weight)
        torch.nn.init.zeros_(block.modulation.bias)
    alone = swap_tokens(model, samples, CONDITIONS, sigmas=(1.0,))[0]
    assert (np.diag(alone) > 0).all()
    assert (alone[~np.eye(11, dtype=bool)] == 0).all()


def test_changes_are_measured_in_standard_deviations_per_token():
    before, after = np.zeros((2, 164)), np.zeros((2, 164))
    after[:, COMPOSUITE.action] = 3.0
    std = np.full(164, 2.0)
    changes = dict(zip((t.name for t in COMPOSUITE.tokens), token_changes(before, after, std, COMPOSUITE), strict=True))
    assert changes.pop("action") == pytest.approx(1.5)
    assert set(changes.values()) == {0.0}


def test_the_commands_write_figures_and_tables(checkpoint, tmp_path, capsys):
    look = Inspection(checkpoint, tmp_path, tuple(TASKS[:2]), sigmas=(0.1, 1.0), device="cpu")
    attention_script(look, samples=8)
    intervene_script(look, samples=4)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"attention_by_noise.pdf", "attention_by_head.png", "attention_by_element.png"} <= names
    assert {"swap_ids.png", "swap_tokens.pdf"} <= names
    rows = list(csv.DictReader((tmp_path / "attention.csv").open()))
    assert len(rows) == 2 * 2 * 2 * 11 * 11
    swaps = list(csv.DictReader((tmp_path / "swap_ids.csv").open()))
    assert {(row["axis"], row["from"], row["to"]) for row in swaps} == {
        ("object", "Box", "Plate"), ("object", "Plate", "Box"),
        ("objective", "Push", "Shelf"), ("objective", "Shelf", "Push"),
        ("noise", TASKS[0], TASKS[0]), ("noise", TASKS[1], TASKS[1]),
    }  # fmt: skip
    assert "another object:" in capsys.readouterr().out


def test_what_cannot_be_looked_into_is_named(checkpoint):
    with pytest.raises(ConfigError, match="name --tasks"):
        conditions_of(find_family("composuite"), checkpoint, ())
    with pytest.raises(ConfigError, match="is a UniformDiT"):
        attention_maps(_model("dit_uniform"), {}, {})
    with pytest.raises(ConfigError, match="differ in an element"):
        swap_ids(_model(), {TASKS[0]: CONDITIONS[TASKS[0]]}, 4)
