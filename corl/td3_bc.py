"""TD3+BC (Fujimoto & Gu 2021): TD3 on a fixed data set with a behaviour-cloning term in the actor's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from corl.batch import Batch
from corl.learner import Learner, Noise
from corl.stacking import Networks
from runtime.checks import expect_range

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class TD3BCConfig:
    """Defaults are those of the published code."""

    learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 0.005
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    policy_freq: int = 2
    alpha: float = 2.5
    hidden_dims: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        expect_range(self, "policy_freq", "hidden_dims", least=1)
        expect_range(self, "learning_rate", above=True)
        expect_range(self, "policy_noise", "noise_clip", "alpha")
        expect_range(self, "discount", most=1)
        expect_range(self, "tau", most=1, above=True)


def target_values(
    actor_target: Network, critic_target: Network, batch: Batch, noise: Tensor, config: TD3BCConfig
) -> Tensor:
    """(B,) r + (1 - done) discount min_i Q_i'(s', clip(pi'(s') + clipped noise)) for standard normal noise (B, A)."""
    noise = (noise * config.policy_noise).clamp(-config.noise_clip, config.noise_clip)
    actions = (actor_target(batch.next_states) + noise).clamp(-1.0, 1.0)
    values = critic_target(batch.next_states, actions).amin(dim=0)
    return batch.rewards + (1.0 - batch.dones) * config.discount * values


def critic_loss(critic: Network, batch: Batch, target: Tensor) -> Tensor:
    """Sum over the two critics of their mean squared errors to target (B,)."""
    values = critic(batch.states, batch.actions)
    return F.mse_loss(values, target.expand_as(values)) * len(values)


def actor_loss(actor: Network, critic: Network, batch: Batch, alpha: float) -> tuple[Tensor, Tensor]:
    """-lambda mean Q1(s, pi(s)) + MSE(pi(s), a), with lambda = alpha / mean |Q1|; and the second term alone."""
    actions = actor(batch.states)
    values = critic(batch.states, actions, 1)[0]
    weight = alpha / values.detach().abs().mean().clamp_min(1e-8)
    cloning = F.mse_loss(actions, batch.actions)
    return cloning - weight * values.mean(), cloning


class TD3BC(Learner):
    """Actor, a pair of critics and their targets."""

    Config = TD3BCConfig
    targets = ("actor", "critic")

    def draw(self, steps: int, batch_size: int, action_dim: int) -> Noise:
        """Standard normal noise (K, B, A) on the target's actions."""
        return (torch.randn(steps, batch_size, action_dim, generator=self.generator, device=self.device),)

    def step(self, networks: Networks, batch: Batch, noise: Noise, number: int) -> dict[str, Tensor]:
        """One critic step and, every `policy_freq` steps, one actor step."""
        config = self.config

        def target(actor: Network, critic: Network, batch: Batch, noise: Tensor) -> Tensor:
            return target_values(actor, critic, batch, noise, config)

        def policy_loss(actor: Network, critic: Network, batch: Batch) -> tuple[Tensor, Tensor]:
            return actor_loss(actor, critic, batch, config.alpha)

        targets = networks.call(target, ("actor_target", "critic_target"), batch, *noise)
        loss = networks.call(critic_loss, ("critic",), batch, targets, learn="critic")
        networks.gradient_step("critic", loss)
        losses = {"critic_loss": loss.detach()}
        if number % config.policy_freq == 0:
            loss, cloning = networks.call(policy_loss, ("actor", "critic"), batch, learn="actor")
            networks.gradient_step("actor", loss)
            networks.polyak_update(("actor", "critic"), config.tau)
            losses |= {"actor_loss": loss.detach(), "bc_loss": cloning.detach()}
        return losses
