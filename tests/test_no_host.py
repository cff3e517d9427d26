"""No step waits for the host: gradient steps and sampling run with every tensor on a device that has no numbers.

On torch's `meta` device `.item()` has nothing to give, and `NoHost` fails where a tensor of the CPU, numbers of single
values aside, goes into an operation or comes out of one. Optimisers are plain here: torch's fused ones, which all
learners have, know no such device, and neither does autocast.

What is not covered: replay buffers of DSRL, which stable-baselines3 keeps in the host's memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from benchmarks.roofline import Kernels
from corl.batch import Batch
from corl.config import PolicyConfig
from corl.learner import Learner
from corl.multitask_config import ALGORITHMS, MultitaskConfig
from corl.multitask_learner import make_learner
from corl.online_replay import OnlineReplay, RowCode
from corl.rlpd import PriorData, sample
from corl.sac import SAC, SACConfig
from corl.stacking import Stacked
from diffusion import samplers, train
from diffusion.config import SOLVERS, SamplerConfig, TrainConfig
from diffusion.denoisers import DENOISERS, DenoiserConfig, build
from diffusion.ema import EMA
from diffusion.generate import draw
from diffusion.model import DiffusionModel
from diffusion.normalizer import Normalizer, scales
from diffusion.state_first import TransitionParts
from dsrl import denoising
from dsrl.denoising import DDIM, FastSampler, NoisePredictor, cosine_alpha_bar
from offline_compositional_rl_datasets.composuite import COMPOSUITE

META, CPU = torch.device("meta"), torch.device("cpu")
ROWS = 8


class NoNewNumbers(TorchFunctionMode):
    """Within, no tensor is made of the host's numbers: that is a copy, which no operation shows."""

    COPIES = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.COPIES:
            raise AssertionError(f"{func.__name__} copies numbers to the device")
        return func(*args, **(kwargs or {}))


class NoHost(Kernels):
    """Within, an operation may neither take nor give a tensor that is elsewhere than on the device."""

    def __enter__(self) -> NoHost:
        self.numbers = NoNewNumbers()
        self.numbers.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.numbers.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        for value in tree_leaves((args, kwargs, out)):
            if isinstance(value, Tensor) and value.dim() and value.device != META:
                raise AssertionError(f"{func} has a tensor {tuple(value.shape)} on {value.device}")
        return out


def _plain(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, foreach=True)


def _batch(*leading: int, state_dim: int, action_dim: int) -> Batch:
    def values(*shape: int) -> Tensor:
        return torch.empty(*leading, *shape, device=META)

    return Batch(values(state_dim), values(action_dim), values(), values(state_dim), values())


def _moved(learner: Learner) -> Learner:
    """The learner on the device, with plain optimisers."""
    for module in learner.modules.values():
        module.to(META)
    networks = learner.networks
    networks.optimizers = {name: _plain(networks.modules[name].parameters()) for name in networks.optimizers}
    learner.device = META
    return learner


def test_the_check_sees_a_copy_from_the_host_and_a_question_to_the_device() -> None:
    x = torch.empty(3, device=META)
    with pytest.raises(AssertionError, match="copies numbers"), NoHost():
        x.new_tensor([1.0])
    with pytest.raises(AssertionError, match="on cpu"), NoHost():
        x.copy_(torch.ones(3))
    with pytest.raises(RuntimeError, match="meta"), NoHost():
        x.sum().item()


GENERATORS = {
    ("dit", "joint"): 1_091,
    ("dit", "state_first"): 2_017,
    ("dit_uniform", "joint"): 872,
    ("monolithic", "joint"): 254,
    ("compositional", "joint"): 1_424,
}
"""Kind and order: the most kernels that a step may take at the published size, the optimiser's own not counted."""


@pytest.mark.parametrize(("kind", "order"), GENERATORS)
def test_a_generators_step(kind: str, order: str) -> None:
    config = TrainConfig(action_weight=5.0, ema_every=1)
    sizes = dataclasses.replace(DENOISERS[kind].network, order=order)
    network = build(COMPOSUITE, sizes).to(META)
    average = EMA(network, decay=0.9, every=1)
    optimizer, noise = _plain(network.parameters()), torch.Generator()
    loss = train.make_loss(order, config, COMPOSUITE, META)
    y = torch.empty(ROWS, COMPOSUITE.transition_dim, device=META)
    condition = torch.empty(ROWS, COMPOSUITE.condition_dim, device=META)
    with NoHost() as seen:
        value = train.train_step(network, optimizer, loss, y, condition, noise, grad_clip=1.0)
    assert value.device == META
    assert len(seen.each) <= GENERATORS[kind, order]
    with NoHost():
        average.update(1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("kind", "order"), GENERATORS)
def test_sampling(kind: str, order: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = DenoiserConfig(kind=kind, order=order, hidden=32, depth=2, heads=2)
    network = build(COMPOSUITE, sizes).to(META).eval().requires_grad_(False)
    parts = TransitionParts.of(COMPOSUITE, META) if order == "state_first" else None
    zeros = torch.zeros(COMPOSUITE.transition_dim)
    normalizer = Normalizer(zeros, zeros + 1, COMPOSUITE, True).to(META)
    model = DiffusionModel(network, normalizer, scales(COMPOSUITE, 1.0).to(META), 1, parts=parts)
    noise = torch.empty(ROWS, COMPOSUITE.transition_dim, device=META)
    task = torch.empty(1, COMPOSUITE.condition_dim, device=META)
    copies = []

    def levels_on_the_device(levels: list[float], x: Tensor) -> tuple[Tensor, ...]:
        copies.append(len(levels))
        return torch.empty(len(levels), device=META).split(1)

    monkeypatch.setattr(samplers, "_each", levels_on_the_device)
    for rest in ("mean", "sample"):
        copies.clear()
        config = SamplerConfig(solver=solver, steps=5, rest=rest)
        with NoHost():
            assert draw(model, noise, task, config, torch.Generator()).shape == noise.shape
        # Levels go to the device before a solver's first step, and not once a step.
        assert len(copies) <= 2 * (1 + (order == "state_first" and rest == "sample"))


POLICIES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("td3_bc", {}, {"float32": 151, "bfloat16": 202}),
    ("iql", {}, {"float32": 167, "bfloat16": 218}),
    ("iql", {"gaussian": True}, {"float32": 190, "bfloat16": 243}),
    ("bc", {"members": 2}, {"float32": 42, "bfloat16": 57}),
    ("sac", {}, {"float32": 265, "bfloat16": 338}),
]
"""Algorithm, settings, the most kernels of a step of many policies at once; bfloat16 casts weights and inputs."""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "many"])
@pytest.mark.parametrize(("algorithm", "settings", "most"), POLICIES)
def test_a_policys_steps(
    algorithm: str, settings: dict[str, Any], most: dict[str, int], stacked: bool, precision: str
) -> None:
    config = PolicyConfig(algorithm=algorithm, precision=precision, learners={algorithm: settings})
    learner = _moved(config.build(COMPOSUITE, seed=0, device=CPU))
    leading = (3,) if stacked else ()
    networks = Stacked([learner.networks] * 3) if stacked else learner.networks
    if stacked:
        networks.optimizers = {name: _plain(networks.parameters[name].values()) for name in networks.optimizers}
    batch = _batch(*leading, ROWS, state_dim=COMPOSUITE.state_dim, action_dim=COMPOSUITE.action_dim)
    noise = [tuple(values[0] for values in learner.draw(1, ROWS, COMPOSUITE.action_dim)) for _ in range(3)]
    own = tuple(torch.stack(members) for members in zip(*noise, strict=True)) if stacked else noise[0]
    for number in (1, 2):  # every second step of some algorithms is another one
        with NoHost() as seen:
            losses = learner.step(networks, batch, own, number)
            assert len(seen.each) <= most[precision]
    assert losses and all(value.device == META for value in losses.values())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_multitask_step(algorithm: str) -> None:
    config = MultitaskConfig(algorithm=algorithm)
    learner = _moved(make_learner(config, COMPOSUITE, seed=0, device=CPU))
    batch = _batch(ROWS, state_dim=COMPOSUITE.observation_dim, action_dim=COMPOSUITE.action_dim)
    with NoHost():
        for _ in range(2):
            learner.update(batch)


@pytest.mark.parametrize(
    "settings",
    [{}, {"critics": 10, "layer_norm": "all", "actor_mean": True}, {"cloning": 2.0}, {"autotune": False}],
    ids=["sac", "rlpd", "cloning", "fixed temperature"],
)
def test_online_updates_and_their_batches(settings: dict[str, Any]) -> None:
    config = SACConfig(hidden_dims=(16, 16), **settings)
    agent = _moved(SAC.build(5, 2, config, seed=0, device=CPU))
    code = RowCode(5, 2)
    replay = OnlineReplay(100, code.width, META)
    replay.added = 50
    prior = PriorData.__new__(PriorData)
    prior.rows = torch.empty(30, code.width, device=META)
    with NoHost():
        batches = sample(replay, prior, ROWS // 2, updates=3, batch_size=ROWS, code=code, generator=torch.Generator())
        agent.learn(batches, prior=ROWS // 2)
        agent.explore(torch.empty(4, 5, device=META))


def test_cloning_and_sampling_of_a_diffusion_policy() -> None:
    alpha_bar = cosine_alpha_bar(20).float()
    times = (19, 10, 0)
    network = NoisePredictor(8, 5, (16, 16)).to(META)
    step, fast = DDIM(alpha_bar, times), FastSampler(network, alpha_bar, times)
    optimizer = _plain(network.parameters())
    x, seen, levels = (torch.empty(*shape, device=META) for shape in ((ROWS, 8), (ROWS, 5), (20,)))
    with NoHost():
        error = denoising.loss(network, x, seen, levels, torch.Generator())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        assert step(0, x, x).shape == fast(x, seen).shape == x.shape
