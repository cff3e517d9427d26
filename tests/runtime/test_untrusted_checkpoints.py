"""Checkpoints whose parts are of other kinds or shapes: said when they are loaded, not while they are used."""

import re

import pytest
import torch

from corl.networks import Actor, EnsembleActor
from corl.policy import Policy
from diffusion.config import TrainConfig
from diffusion.denoisers import DenoiserConfig, build
from diffusion.model import DiffusionModel
from diffusion.train import load_initial
from envs.experts.published import PublishedExpert
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.config import to_dict
from runtime.errors import ConfigError, DataError

NETWORK = DenoiserConfig(hidden=8, depth=1, heads=2)


def _generator():
    return {
        "ema": build(COMPOSUITE, NETWORK).state_dict(),
        "normalizer.mean": torch.zeros(164),
        "normalizer.std": torch.ones(164),
        "denoiser": to_dict(NETWORK),
        "train": to_dict(TrainConfig()),
        "step": 7,
    }


def _policy():
    return {
        "actor": Actor(77, 8, (4,)).state_dict(),
        "algorithm": "td3_bc",
        "learner": {"hidden_dims": [4]},
        "states": StateTransform.unscaled(COMPOSUITE).state_dict() | {"std": [float("inf")] * 77},
    }


def _changed(contents, path, change):
    """`contents` saved with the entry at `change` (a path of keys) replaced, or without it where the value is None."""
    *keys, value = change
    place = contents
    for key in keys[:-1]:
        place[key] = dict(place[key])
        place = place[key]
    place[keys[-1]] = value
    if value is None:
        del place[keys[-1]]
    torch.save(contents, path)
    return path


def _first(state):
    return next(iter(state))


ODD = {
    "nothing": None,
    "number": 3,
    "text": "text",
    "list": [1.0],
    "empty mapping": {},
    "short": torch.zeros(3),
    "matrix": torch.zeros(164, 2),
    "complex": torch.zeros(164, dtype=torch.complex64),
    "sparse": torch.zeros(164).to_sparse(),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", [*_generator(), "weight", "sigma_data", "delta_next", "hidden"])
def test_a_generator_with_another_part_is_refused_when_it_is_loaded(tmp_path, key, odd):
    contents, value = _generator(), ODD[odd]
    inside = {"weight": ("ema", _first(contents["ema"])), "hidden": ("denoiser", "hidden")}
    change = inside.get(key, ("train", key) if key in ("sigma_data", "delta_next") else (key,))
    path = _changed(contents, tmp_path / "model.pt", (*change, value))
    if (key, odd) in (("step", "number"), ("sigma_data", "number"), ("hidden", "nothing")):
        return  # a step and a scale as good as the others; a size that is not given is the default one
    with pytest.raises((DataError, ConfigError), match=f"^{re.escape(str(path))}: "):
        DiffusionModel.load(path, COMPOSUITE, torch.device("cpu"))


def test_a_good_generator_is_loaded_and_one_of_another_kind_of_number_too(tmp_path):
    contents = _generator()
    contents["ema"] = {key: value.double() for key, value in contents["ema"].items()}
    torch.save(contents, tmp_path / "model.pt")
    model = DiffusionModel.load(tmp_path / "model.pt", COMPOSUITE, torch.device("cpu"))
    assert model.step == 7
    assert {value.dtype for value in model.network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_scales_that_are_none_are_refused(tmp_path, value):
    contents = _generator()
    contents["normalizer.std"][5] = value
    torch.save(contents, tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"model\.pt"):
        DiffusionModel.load(tmp_path / "model.pt", COMPOSUITE, torch.device("cpu"))


@pytest.mark.parametrize(("key", "value"), [("hidden", 10**6), ("depth", 10**9), ("mlp_ratio", 10**9), ("patch", 0)])
def test_a_network_that_is_larger_than_its_file_is_refused_before_room_is_made_for_it(tmp_path, key, value):
    path = _changed(_generator(), tmp_path / "model.pt", ("denoiser", key, value))
    with pytest.raises((DataError, ConfigError), match=r"model\.pt: (claims|patch)"):
        DiffusionModel.load(path, COMPOSUITE, torch.device("cpu"))


@pytest.mark.parametrize("hidden", [[10**6, 10**6], [10**12], [10**20], [0], [True]])
def test_a_policy_that_is_larger_than_its_file_is_refused_before_room_is_made_for_it(tmp_path, hidden):
    path = _changed(_policy(), tmp_path / "policy.pt", ("learner", "hidden_dims", hidden))
    with pytest.raises((DataError, ConfigError), match=r"policy\.pt: (claims|learner|actor)"):
        Policy.load(path, COMPOSUITE)


@pytest.mark.parametrize("key", ["normalizer.mean", "ema", "train", "denoiser"])
def test_a_warm_start_from_another_kind_of_file_is_refused(tmp_path, key):
    path = _changed(_generator(), tmp_path / "model.pt", (key, torch.zeros(3)))
    with pytest.raises(DataError, match=rf"model\.pt: {key} is a"):
        load_initial(path, NETWORK, TrainConfig(), COMPOSUITE)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", [*_policy(), "weight"])
def test_a_policy_with_another_part_is_refused_when_it_is_loaded(tmp_path, key, odd):
    contents, value = _policy(), ODD[odd]
    change = ("actor", _first(contents["actor"])) if key == "weight" else (key,)
    path = _changed(contents, tmp_path / "policy.pt", (*change, value))
    with pytest.raises((DataError, ConfigError), match=f"^{re.escape(str(path))}: "):
        Policy.load(path, COMPOSUITE)


@pytest.mark.parametrize("members", [2, 10**12])
def test_an_ensemble_that_has_not_the_members_that_it_claims_is_refused(tmp_path, members):
    actor = EnsembleActor(77, 8, (4,), [0])
    contents = {**_policy(), "algorithm": "bc", "actor_target": actor.state_dict()}
    path = _changed(contents, tmp_path / "policy.pt", ("learner", "members", members))
    with pytest.raises(DataError, match=r"policy\.pt: actor_target has not the .* members that it claims"):
        Policy.load(path, COMPOSUITE)


def test_a_good_policy_is_loaded_with_its_hidden_velocities(tmp_path):
    torch.save(_policy(), tmp_path / "policy.pt")
    assert Policy.load(tmp_path / "policy.pt", COMPOSUITE)(torch.zeros(2, 77).numpy()).shape == (2, 8)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"pi.mu_net._module_list.0.pre_interface.0.0.weight": torch.zeros(3, 3)},
        {"pi.mu_net._module_list.0.pre_interface.0.x.weight": torch.zeros(3, 14)},
        {"pi.mu_net._module_list.0.pre_interface.0.0.weight": torch.zeros(3, 14, dtype=torch.complex64)},
        {"pi.mu_net._module_list.0.pre_interface.0.0.weight": 3},
    ],
    ids=lambda parameters: str(list(parameters.values())),
)
def test_a_published_policy_with_other_layers_is_refused_when_it_is_loaded(tmp_path, parameters):
    torch.save({"model": parameters}, tmp_path / "state_dicts.pt")
    with pytest.raises(DataError, match=r"state_dicts\.pt: "):
        PublishedExpert(tmp_path / "state_dicts.pt", CompoSuiteTask.parse("IIWA_Box_None_Push"))
