"""TD3+BC (Fujimoto & Gu 2021): TD3 on a fixed data set with a behaviour-cloning term in the actor's loss."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from corl.networks import Actor, TwinCritic
from corl.replay import Batch
from runtime.errors import ConfigError

CHECKPOINT_PREFIX = "td3_bc"


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
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        if self.policy_freq < 1 or not self.learning_rate > 0 or not self.hidden:
            raise ConfigError(
                f"policy_freq {self.policy_freq}, learning_rate {self.learning_rate}, hidden {self.hidden}: expected "
                "at least 1, a positive number and one or more sizes"
            )


class TD3BC:
    """Actor, twin critics, their targets and optimisers. `update(batch)` is one gradient step."""

    def __init__(
        self, state_dim: int, action_dim: int, config: TD3BCConfig, *, seed: int, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(state_dim, action_dim, config.hidden).to(device)
            self.critic = TwinCritic(state_dim, action_dim, config.hidden).to(device)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.learning_rate, fused=True)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.total_it = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic step and, every `policy_freq` steps, one actor step; returns losses as tensors (no host sync)."""
        self.total_it += 1
        losses = {"critic_loss": self._update_critic(batch)}
        if self.total_it % self.config.policy_freq == 0:
            losses["actor_loss"], losses["bc_loss"] = self._update_actor(batch)
            self._update_targets()
        return losses

    def critic_target_values(self, batch: Batch) -> Tensor:
        """(B,) r + (1 - done) discount min_i Q_i'(s', clip(pi'(s') + clipped noise))."""
        config = self.config
        noise = torch.randn(batch.actions.shape, generator=self.generator, device=self.device) * config.policy_noise
        noise = noise.clamp(-config.noise_clip, config.noise_clip)
        actions = (self.actor_target(batch.next_states) + noise).clamp(-1.0, 1.0)
        values = self.critic_target(batch.next_states, actions).amin(dim=0)
        return batch.rewards + (1.0 - batch.dones) * config.discount * values

    def _update_critic(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            target = self.critic_target_values(batch)
        values = self.critic(batch.states, batch.actions)
        # Sum over the two critics of their mean squared errors.
        loss = F.mse_loss(values, target.expand_as(values)) * len(values)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        return loss.detach()

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-lambda mean Q1(s, pi(s)) + MSE(pi(s), a), with lambda = alpha / mean |Q1|; and the second term alone."""
        actions = self.actor(batch.states)
        values = self.critic.first(batch.states, actions)
        weight = self.config.alpha / values.detach().abs().mean().clamp_min(1e-8)
        cloning = F.mse_loss(actions, batch.actions)
        return cloning - weight * values.mean(), cloning

    def _update_actor(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.critic.requires_grad_(False)
        loss, cloning = self.actor_loss(batch)
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()
        self.critic.requires_grad_(True)
        return loss.detach(), cloning.detach()

    @torch.no_grad()
    def _update_targets(self) -> None:
        for network, target in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
            torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), self.config.tau)

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor": self.actor.state_dict(),
            "actor_target": self.actor_target.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_target": self.critic_target.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "total_it": self.total_it,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("actor", "actor_target", "actor_optimizer", "critic", "critic_target", "critic_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        self.total_it = state["total_it"]
