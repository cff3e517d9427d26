"""Behaviour cloning on (s, a) alone: an ensemble, averaged weights and a cosine rate; one policy is like the next.

Deep ensembles (Lakshminarayanan et al. 2017): members differ by their initial weights and see the same batches; the
policy is the mean of their actions. The policy that acts has the exponential moving average of the weights
(Polyak & Juditsky 1992).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from corl.learner import Learner, Networks
from corl.networks import EnsembleActor
from corl.replay import Batch
from runtime.errors import expect_range
from runtime.seeds import derive_seed

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class BCConfig:
    """`members` networks of the widths `hidden`; `tau` is the share by which the average follows the weights per step.

    The learning rate falls by a cosine to 0 over all steps.
    """

    learning_rate: float = 1e-3
    members: int = 1
    tau: float = 0.005
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        expect_range(self, "members", "hidden", least=1)
        expect_range(self, "learning_rate", above=True)
        expect_range(self, "tau", most=1, above=True)


def cloning_loss(actor: Network, batch: Batch) -> Tensor:
    """Sum over members of their mean squared errors (so that a member's gradient is that of a network alone)."""
    errors = (actor(batch.states, True) - batch.actions).square()
    return errors.mean() * len(errors)


class BC(Learner):
    """An ensemble of actors and its average over time, which is the policy that acts."""

    acting = "actor_target"

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        config: BCConfig,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        max_steps: int,
    ) -> None:
        seeds = [derive_seed("member", seed, i) for i in range(config.members)]
        actor = EnsembleActor(state_dim, action_dim, config.hidden, seeds).to(device)
        modules = {"actor": actor, "actor_target": copy.deepcopy(actor).requires_grad_(False)}
        super().__init__(modules, ("actor",), config.learning_rate, seed=seed, device=device, dtype=dtype)
        self.config, self.max_steps = config, max_steps

    def learning_rate(self, number: int) -> float:
        """Cosine to 0; step `number` counts from 1."""
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * (number - 1) / self.max_steps))

    def step(self, networks: Networks, batch: Batch, noise: Tensor | None, number: int) -> dict[str, Tensor]:
        loss = networks.call(cloning_loss, ("actor",), batch, learn="actor")
        networks.minimise("actor", loss, self.learning_rate(number))
        # A running mean at first: the initial weights must not linger in the average.
        networks.follow(("actor",), max(self.config.tau, 1 / number))
        return {"bc_loss": loss.detach() / self.config.members}
