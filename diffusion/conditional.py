"""What a generator expects of a state that it is given: action, reward, next state, terminal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffusion import edm, state_first
from diffusion.model import DiffusionModel
from offline_compositional_rl_datasets.state_transform import canonicalise
from runtime.device import autocast, autocast_dtype

_BLOCK = 4096
_SIGMA = 0.5
"""Noise level at which a generator of order `joint` is asked, its state being clean."""


@torch.inference_mode()
def given_states(
    model: DiffusionModel,
    states: np.ndarray,
    condition: np.ndarray,
    *,
    state_noise: float,
    seed: int = 0,
) -> np.ndarray:
    """(N, 164) float32 transitions from states (N, 77): the states as they are, and the expectation of all else.

    One evaluation of the network per state, which is told that a state has noise of the level `state_noise` (order
    `state_first`; a generator of order `joint` is asked at its one level). Actions are clipped to [-1, 1]. Velocities
    are not read. Relative quaternions get one sign where the training data had it. `seed` is of the noise that stands
    for what is not known (order `joint`; a generator that learned the state first is given zeros).
    """
    normalizer, layout = model.normalizer, model.normalizer.layout
    device = normalizer.mean.device
    task = torch.from_numpy(np.asarray(condition, np.float32)).to(device)[None]
    generator = torch.Generator(device).manual_seed(seed)
    dtype = autocast_dtype(device, model.precision)
    states = np.asarray(states, np.float32)
    if model.canonical_quaternions:
        states = canonicalise(states, layout)
    result = np.empty((len(states), layout.transition_dim), np.float32)
    for start in range(0, len(states), _BLOCK):
        given = torch.from_numpy(states[start : start + _BLOCK]).to(device)
        y = (given - normalizer.mean[layout.state]) / normalizer.std[layout.state]
        with autocast(device, dtype):
            expected = _expected(model, y, task, generator, state_noise)
        rows = (expected * normalizer.std + normalizer.mean).float()
        if normalizer.delta_next:
            rows[:, layout.next_state] += given
        rows[:, layout.state] = given
        rows[:, layout.action].clamp_(-1.0, 1.0)
        result[start : start + len(given)] = rows.cpu().numpy()
    return result


def _expected(model: DiffusionModel, y: Tensor, task: Tensor, generator: torch.Generator, state_noise: float) -> Tensor:
    """(B, 164) normalised, of normalised states (B, 77)."""
    if model.parts is not None:
        return state_first.rest_given_state(model.network, y, task, model.parts, state_noise)
    parts = state_first.TransitionParts.of(model.normalizer.layout, y.device)
    noise = torch.randn((len(y), len(parts.state)), generator=generator, device=y.device)
    x = _SIGMA * noise
    x[:, : parts.state_dim] = torch.where(parts.positions, y, x[:, : parts.state_dim])
    return edm.denoise(model.network, x, y.new_tensor([_SIGMA]), task, model.sigma_data)
