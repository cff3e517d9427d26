"""The learners of single tasks on networks for many: perceptrons of observations with ids, or factored networks."""

from __future__ import annotations

import torch
from torch import nn

from corl.factored import factored
from corl.learner import Learner
from corl.learners import LEARNERS
from corl.multitask_config import MultitaskConfig
from corl.networks import perceptron
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.device import autocast_dtype
from runtime.seeds import derive_seed


def make_network(name: str, config: MultitaskConfig, layout: FactoredLayout) -> nn.Module:
    """The untrained `actor`, `critic` or `value` of the configured algorithm."""
    gaussian = getattr(config.learner, "gaussian", False)
    if config.networks == "mlp":
        sizes = (layout.observation_dim, layout.action_dim)
        return perceptron(name, *sizes, config.learner.hidden_dims, gaussian=gaussian)
    return factored(name, config.networks, layout, gaussian=gaussian)


def make_learner(config: MultitaskConfig, layout: FactoredLayout, *, seed: int, device: torch.device) -> Learner:
    """The configured algorithm, untrained; the same seed gives the same weights."""
    kind = LEARNERS[config.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        networks = {name: make_network(name, config, layout).to(device) for name in kind.trained}
    dtype = autocast_dtype(device, config.precision)
    return kind(networks, config.learner, seed=seed, device=device, dtype=dtype, max_steps=config.max_timesteps)
