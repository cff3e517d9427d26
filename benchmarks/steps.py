"""The kernels of a generator's step, of sampling and of many policies' steps, counted where nothing is computed."""

from __future__ import annotations

import torch

from benchmarks.roofline import Kernels
from corl.batch import Batch
from corl.config import PolicyConfig
from corl.stacking import Stacked
from diffusion.config import SamplerConfig, TrainConfig
from diffusion.denoisers import build, denoiser_named
from diffusion.ema import EMA
from diffusion.generate import draw
from diffusion.model import DiffusionModel
from diffusion.normalizer import Normalizer
from diffusion.train import make_loss, train_step
from offline_compositional_rl_datasets.composuite import COMPOSUITE

_META = torch.device("meta")


def training_step(denoiser: str, batch_size: int) -> Kernels:
    """Of one gradient step of the generator, with its optimiser (one fused kernel) and its average."""
    config, sizes = TrainConfig(), denoiser_named(denoiser).network
    network = build(COMPOSUITE, sizes).to(_META)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, foreach=True)
    average = EMA(network, decay=config.ema_decay, every=1)
    loss = make_loss(sizes.order, config, COMPOSUITE, _META)
    y = torch.empty(batch_size, COMPOSUITE.transition_dim, device=_META)
    condition = torch.empty(batch_size, COMPOSUITE.condition_dim, device=_META)
    kernels = Kernels()
    with kernels:
        train_step(network, optimizer, loss, y, condition, torch.Generator(), grad_clip=config.grad_clip)
        average.update(config.ema_every)
    return kernels


def sampling(denoiser: str, batch_size: int, config: SamplerConfig) -> Kernels:
    """Of one batch, all evaluations."""
    network = build(COMPOSUITE, denoiser_named(denoiser).network).to(_META).eval().requires_grad_(False)
    zeros = torch.zeros(COMPOSUITE.transition_dim)
    normalizer = Normalizer(zeros, zeros + 1, COMPOSUITE, False).to(_META)
    model = DiffusionModel(network, normalizer, torch.ones((), device=_META), 0)
    noise = torch.empty(batch_size, COMPOSUITE.transition_dim, device=_META)
    task = torch.empty(1, COMPOSUITE.condition_dim, device=_META)
    kernels = Kernels()
    with kernels:
        draw(model, noise, task, config, torch.Generator())
    return kernels


def policy_steps(members: int, batch_size: int) -> Kernels:
    """Of two steps of so many TD3+BC policies together: the actor learns in every second."""
    learner = PolicyConfig().build(COMPOSUITE, seed=0, device=torch.device("cpu"))
    for module in learner.modules.values():
        module.to(_META)
    learner.device, names = _META, tuple(learner.networks.optimizers)
    learner.networks.optimizers = {}
    networks = Stacked([learner.networks] * members)
    networks.optimizers = {
        name: torch.optim.SGD([p.requires_grad_() for p in networks.parameters[name].values()], 0.1, foreach=True)
        for name in names
    }
    sizes = (COMPOSUITE.state_dim, COMPOSUITE.action_dim, 0, COMPOSUITE.state_dim, 0)
    rows = (torch.empty(members, batch_size, *((size,) if size else ()), device=_META) for size in sizes)
    batch = Batch(*rows)
    noise = torch.empty(members, batch_size, COMPOSUITE.action_dim, device=_META)
    kernels = Kernels()
    with kernels:
        for number in (1, 2):
            learner.step(networks, batch, (noise,), number)
    return kernels
