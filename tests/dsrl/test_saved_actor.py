import base64
import contextlib
import json
import zipfile
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from dsrl.saved_actor import load_saved_actor
from runtime.errors import DataError

CPU = torch.device("cpu")


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def saved(tmp_path):
    """A stock SAC, and where it is saved; its actions are in [-2, 2]."""
    options = {"policy_kwargs": {"net_arch": [8, 4], "activation_fn": torch.nn.Tanh}, "buffer_size": 10}
    model = SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), seed=0, **options)
    model.save(tmp_path / "sac.zip")
    return model, tmp_path / "sac.zip"


def _changed(path, change):
    """The saved model with its settings changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    settings = json.loads(members["data"])
    change(settings)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "data": json.dumps(settings).encode()}.items():
            archive.writestr(name, content)


def test_a_saved_actor_acts_as_its_model(saved):
    model, path = saved
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = load_saved_actor(path, CPU).predict(seen, deterministic=True)[0]
    np.testing.assert_array_equal(actions, model.predict(seen, deterministic=True)[0])


def test_nothing_that_a_saved_model_holds_is_run(saved, tmp_path):
    _, path = saved
    trap = {":serialized:": base64.b64encode(cloudpickle.dumps(_Trap(tmp_path / "sprung"))).decode()}

    def spring(settings):
        for name, value in settings.items():
            if isinstance(value, dict) and ":serialized:" in value:
                settings[name] = {**value, **trap}
        settings["more"] = trap

    _changed(path, spring)
    load_saved_actor(path, CPU)
    assert not (tmp_path / "sprung").exists()
    with contextlib.suppress(TypeError):  # the trap leaves nothing to make a model of
        SAC.load(path)
    assert (tmp_path / "sprung").exists(), "the trap works where settings are unpickled"


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.pop("action_space"),
        lambda settings: settings.update(action_space=3),
        lambda settings: settings["action_space"].update(low="[]"),
        lambda settings: settings["action_space"].update(low="[-1. -1.]", high="[1. 1.]"),
        lambda settings: settings["policy_kwargs"].update(
            activation_fn="<class 'torch.nn.modules.activation.Threshold'>"
        ),
    ],
)
def test_a_model_with_other_settings_is_refused(saved, change):
    _, path = saved
    _changed(path, change)
    with pytest.raises(DataError, match=r"sac\.zip: "):
        load_saved_actor(path, CPU)
