"""The actor of a model that stable-baselines3's SAC saved, read without running what the file holds.

`SAC.load` unpickles most of a saved model's settings, and with them whatever somebody put there. The actor needs the
weights, the sizes that these have, its activation and the bounds of its actions, which stand in the file as text.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from runtime.checkpoint import load_weights
from runtime.errors import DataError

_ACTIVATIONS = {"ReLU": nn.ReLU, "Tanh": nn.Tanh, "ELU": nn.ELU, "GELU": nn.GELU, "SiLU": nn.SiLU}
_MOST_BYTES = 1 << 30
_LAYER = re.compile(r"actor\.latent_pi\.\d+\.bias")
_NUMBER = re.compile(r"[-+.\d]+(?:e[-+]?\d+)?|[-+]?inf")


def load_saved_actor(path: Path, device: torch.device) -> SACPolicy:
    """The policy with the saved actor; its critics are new ones. Raises `DataError` where the file is another's."""
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(_member(archive, "data"))
            weights = torch.load(io.BytesIO(_member(archive, "policy.pth")), map_location="cpu", weights_only=True)
        biases = sorted((name for name in weights if _LAYER.fullmatch(name)), key=lambda name: int(name.split(".")[2]))
        sizes = [len(weights[name]) for name in biases]
        inputs = weights["actor.latent_pi.0.weight"].shape[1] if sizes else weights["actor.mu.weight"].shape[1]
        low, high = (_numbers(settings["action_space"][bound]) for bound in ("low", "high"))
        policy = SACPolicy(
            gymnasium.spaces.Box(-np.inf, np.inf, (inputs,), np.float32),
            gymnasium.spaces.Box(low, high),
            lambda _: 0.0,
            net_arch=sizes,
            activation_fn=_activation(settings["policy_kwargs"]),
        )
    except Exception as error:  # whatever its archive and torch's unpickler meet
        raise DataError(f"{path}: not a SAC model of stable-baselines3 ({type(error).__name__})") from error
    own = {name.removeprefix("actor."): value for name, value in weights.items() if name.startswith("actor.")}
    load_weights(policy.actor, own, path, "actor")
    return policy.to(device).requires_grad_(False)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _numbers(text: str) -> np.ndarray:
    """The array that numpy printed as `text`."""
    return np.array([float(number) for number in _NUMBER.findall(text)], np.float32)


def _activation(settings: dict[str, Any]) -> type[nn.Module]:
    """ReLU where nothing else was asked for, as stable-baselines3 has it."""
    found = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", str(settings.get("activation_fn", "")))
    return _ACTIVATIONS[found.group(1)] if found else nn.ReLU
