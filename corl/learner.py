"""A learner: an algorithm's networks and settings as one value that takes gradient steps, is saved and goes on."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from corl.batch import Batch
from corl.networks import perceptron
from corl.stacking import Networks, Separate
from runtime.checkpoint import build_within, load_optimizer, load_weights, restore_random
from runtime.seeds import derive_seed

L = TypeVar("L", bound="Learner")

Noise = tuple[Tensor, ...]
"""A step's random numbers: what they are is the algorithm's own."""


class Learner(ABC):
    """One policy in training: networks, targets, optimisers, its own random numbers, and how many steps it has taken.

    An algorithm is a subclass in a file of its own and a line in `corl.learners.LEARNERS`. It has the dataclass of its
    settings (`Config`), names of the networks that it trains and of those that have a target, and a `step`; networks
    other than the usual perceptrons come from its `network`.
    """

    Config: ClassVar[type[Any]]
    trained: ClassVar[tuple[str, ...]] = ("actor", "critic")
    targets: ClassVar[tuple[str, ...]] = ()
    acting: ClassVar[str] = "actor"
    """Which network is the policy."""
    uses_rewards: ClassVar[bool] = True

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        config: Any,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        max_steps: float = math.inf,
    ) -> None:
        """`networks` are those of `trained`, on `device`. Learning rates that fall are over `max_steps` steps."""
        targets = {f"{name}_target": copy.deepcopy(networks[name]).requires_grad_(False) for name in self.targets}
        self.config, self.device, self.max_steps = config, device, max_steps
        optimizers = {
            name: torch.optim.Adam(networks[name].parameters(), self.learning_rate(name), fused=True)
            for name in self.trained
        }
        self.networks = Separate({**networks, **targets}, optimizers, dtype)
        self.generator = torch.Generator(device).manual_seed(derive_seed("noise", seed))
        self.total_it = 0

    @classmethod
    def network(cls, name: str, state_dim: int, action_dim: int, config: Any, seed: int = 0) -> nn.Module:
        """The untrained network `name`, with weights from torch's global generator (or of `seed`)."""
        return perceptron(name, state_dim, action_dim, config.hidden_dims)

    @classmethod
    def build(
        cls: type[L],
        state_dim: int,
        action_dim: int,
        config: Any,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        max_steps: float = math.inf,
    ) -> L:
        """An untrained learner; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("weights", seed))
            networks = {name: cls.network(name, state_dim, action_dim, config, seed).to(device) for name in cls.trained}
        return cls(networks, config, seed=seed, device=device, dtype=dtype, max_steps=max_steps)

    @classmethod
    def load(cls, state_dim: int, action_dim: int, config: Any, weights: Any, path: Path) -> nn.Module:
        """The network that acts, on the CPU, with `weights` of the checkpoint `path`.

        Raises `DataError` where they are not the weights of such a network.
        """
        actor = build_within(path, lambda: cls.network("actor", state_dim, action_dim, config))
        load_weights(actor, weights, path, cls.acting)
        return actor.requires_grad_(False)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All networks, targets too, by name."""
        return self.networks.modules

    @property
    def actor(self) -> nn.Module:
        """The network that acts."""
        return self.modules[self.acting]

    def learning_rate(self, name: str) -> float:
        """Of the network `name`, at first."""
        return float(self.config.learning_rate)

    def cosine(self, number: int) -> float:
        """The share of a learning rate at step `number`, from 1: a cosine from 1 to 0 over all steps."""
        return 0.5 * (1 + math.cos(math.pi * (number - 1) / self.max_steps))

    def draw(self, steps: int, batch_size: int, action_dim: int) -> Noise:
        """Random numbers of the next steps, each with a leading dimension of steps; none where `step` takes none.

        Many small draws cost more than the products of a step.
        """
        return ()

    @abstractmethod
    def step(self, networks: Networks, batch: Batch, noise: Noise, number: int) -> dict[str, Tensor]:
        """Gradient step `number` (from 1) on one policy or many; losses as tensors (no host synchronisation)."""

    def update(self, batch: Batch, noise: Noise | None = None) -> dict[str, Tensor]:
        """One gradient step of this policy alone; noise is drawn where none is given."""
        if noise is None:
            noise = tuple(values[0] for values in self.draw(1, *batch.actions.shape))
        self.total_it += 1
        return self.step(self.networks, batch, noise, self.total_it)

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: module.state_dict() for name, module in self.modules.items()},
            **{f"{name}_optimizer": o.state_dict() for name, o in self.networks.optimizers.items()},
            "generator": self.generator.get_state(),
            "total_it": self.total_it,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        for name, optimizer in self.networks.optimizers.items():
            load_optimizer(optimizer, state[f"{name}_optimizer"])
        restore_random(self.generator, state["generator"], state["total_it"])
        self.total_it = state["total_it"]
