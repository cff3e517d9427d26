"""Behaviour cloning on (s, a) alone: an ensemble, averaged weights and a cosine rate; one policy is like the next.

Deep ensembles (Lakshminarayanan et al. 2017): members differ by their initial weights and see the same batches; the
policy is the mean of their actions. The policy that acts has the exponential moving average of the weights
(Polyak & Juditsky 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from corl.batch import Batch
from corl.learner import Learner, Noise
from corl.networks import EnsembleActor
from corl.stacking import Networks
from runtime.checks import expect_range
from runtime.errors import DataError
from runtime.seeds import derive_seed

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class BCConfig:
    """`members` networks of the widths `hidden_dims`, averaged over time with the rate `tau` (1: no average).

    With `cosine` the learning rate falls by a cosine to 0 over all steps.
    """

    learning_rate: float = 1e-3
    members: int = 1
    tau: float = 0.005
    hidden_dims: tuple[int, ...] = (256, 256)
    cosine: bool = True

    def __post_init__(self) -> None:
        expect_range(self, "members", "hidden_dims", least=1)
        expect_range(self, "learning_rate", above=True)
        expect_range(self, "tau", most=1, above=True)


def cloning_loss(actor: Network, batch: Batch) -> Tensor:
    """Sum over members of their mean squared errors (so that a member's gradient is that of a network alone)."""
    errors = (actor(batch.states, True) - batch.actions).square()
    return errors.mean() * len(errors)


class BC(Learner):
    """An ensemble of actors and its average over time, which is the policy that acts."""

    Config = BCConfig
    trained = ("actor",)
    targets = ("actor",)
    acting = "actor_target"
    uses_rewards = False

    @classmethod
    def network(cls, name: str, state_dim: int, action_dim: int, config: BCConfig, seed: int = 0) -> nn.Module:
        seeds = [derive_seed("member", seed, i) for i in range(config.members)]
        return EnsembleActor(state_dim, action_dim, config.hidden_dims, seeds)

    @classmethod
    def load(cls, state_dim: int, action_dim: int, config: BCConfig, weights: Any, path: Path) -> nn.Module:
        members = weights.get("weights.0")
        if not isinstance(members, Tensor) or not members.ndim or len(members) != config.members:
            raise DataError(f"{path}: {cls.acting} has not the {config.members:,} members that it claims")
        return super().load(state_dim, action_dim, config, weights, path)

    def step(self, networks: Networks, batch: Batch, noise: Noise, number: int) -> dict[str, Tensor]:
        config = self.config
        loss = networks.call(cloning_loss, ("actor",), batch, learn="actor")
        rate = config.learning_rate * (self.cosine(number) if config.cosine else 1.0)
        networks.gradient_step("actor", loss, rate)
        # A running mean at first: the initial weights must not linger in the average.
        networks.polyak_update(("actor",), max(config.tau, 1 / number))
        return {"bc_loss": loss.detach() / config.members}
