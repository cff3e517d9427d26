"""Implicit Q-learning (Kostrikov et al. 2022): values by expectile regression, no action outside the data is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corl.batch import Batch
from corl.learner import Learner, Noise
from corl.networks import perceptron
from corl.stacking import Networks
from runtime.checks import expect_range

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class IQLConfig:
    """Defaults are those of the published code. `beta` is the inverse temperature of the policy's weights.

    The policy is deterministic and learns by weighted squared errors; with `gaussian` it has one log standard
    deviation per action and learns by weighted likelihood. Either way it acts by its mean. The actor's learning rate
    falls by a cosine to 0 over all steps.
    """

    learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 0.005
    expectile: float = 0.7
    beta: float = 3.0
    max_weight: float = 100.0
    gaussian: bool = False
    hidden_dims: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        expect_range(self, "hidden_dims", least=1)
        expect_range(self, "learning_rate", "max_weight", above=True)
        expect_range(self, "beta")
        expect_range(self, "expectile", most=1, above=True, below=True)
        expect_range(self, "discount", most=1)
        expect_range(self, "tau", most=1, above=True)


def before_update(value: Network, critic_target: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """(B,) V(s') and the smaller target Q(s, a), both from before this step's updates."""
    return value(batch.next_states), critic_target(batch.states, batch.actions).amin(dim=0)


def value_loss(value: Network, batch: Batch, q: Tensor, expectile: float) -> tuple[Tensor, Tensor]:
    """Eq. 5: mean of |expectile - 1(u < 0)| u^2 with the advantage u = q - V(s); and u (B,)."""
    advantage = q - value(batch.states)
    weight = torch.where(advantage < 0, 1.0 - expectile, expectile)
    return (weight * advantage.square()).mean(), advantage


def critic_loss(critic: Network, batch: Batch, next_values: Tensor, discount: float) -> Tensor:
    """Eq. 6: mean over the two critics of their mean squared errors to r + (1 - done) discount V(s')."""
    target = batch.rewards + (1.0 - batch.dones) * discount * next_values
    return (critic(batch.states, batch.actions) - target).square().mean()


def policy_loss(actor: Network, batch: Batch, advantage: Tensor, config: IQLConfig) -> Tensor:
    """Eq. 7: mean of min(exp(beta u), max_weight) times each action's squared error, or negative log-likelihood."""
    weight = (config.beta * advantage).exp().clamp_max(config.max_weight)
    if not config.gaussian:
        return (weight * (actor(batch.states) - batch.actions).square().sum(dim=-1)).mean()
    mean, log_std = actor(batch.states, True).unbind(0)
    errors = ((batch.actions - mean) / log_std.exp()).square()
    surprise = 0.5 * errors + log_std + 0.5 * math.log(2 * math.pi)
    return (weight * surprise.sum(dim=-1)).mean()


class IQL(Learner):
    """Actor, a pair of critics with targets, and the value network."""

    Config = IQLConfig
    trained = ("actor", "critic", "value")
    targets = ("critic",)

    @classmethod
    def network(cls, name: str, state_dim: int, action_dim: int, config: IQLConfig, seed: int = 0) -> nn.Module:
        return perceptron(name, state_dim, action_dim, config.hidden_dims, gaussian=config.gaussian)

    def step(self, networks: Networks, batch: Batch, noise: Noise, number: int) -> dict[str, Tensor]:
        """Value, critics and their targets, policy, in this order; V(s') is that of before the value's step."""
        config = self.config

        def value_and_advantage(value: Network, batch: Batch, q: Tensor) -> tuple[Tensor, Tensor]:
            return value_loss(value, batch, q, config.expectile)

        def critics(critic: Network, batch: Batch, next_values: Tensor) -> Tensor:
            return critic_loss(critic, batch, next_values, config.discount)

        def policy(actor: Network, batch: Batch, advantage: Tensor) -> Tensor:
            return policy_loss(actor, batch, advantage, config)

        next_values, q = networks.call(before_update, ("value", "critic_target"), batch)
        loss_v, advantage = networks.call(value_and_advantage, ("value",), batch, q, learn="value")
        networks.gradient_step("value", loss_v)
        loss_q = networks.call(critics, ("critic",), batch, next_values, learn="critic")
        networks.gradient_step("critic", loss_q)
        networks.polyak_update(("critic",), config.tau)
        loss_pi = networks.call(policy, ("actor",), batch, advantage.detach(), learn="actor")
        networks.gradient_step("actor", loss_pi, config.learning_rate * self.cosine(number))
        return {"value_loss": loss_v.detach(), "critic_loss": loss_q.detach(), "actor_loss": loss_pi.detach()}
