"""Soft actor-critic (Haarnoja et al. 2018) with a learned temperature, and what RLPD (Ball et al. 2023) adds to it.

RLPD's additions are options: LayerNorm in the critics, an ensemble of them of which a random few give the target, many
updates per step of the environment. Its symmetric sampling is in `corl.rlpd`. Cloning of the prior data by the actor is
not RLPD's, but that of TD3+BC (Fujimoto and Gu 2021), and an option too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corl.ensembles import LAYER_NORMS, CriticEnsemble, SquashedActor, squash
from corl.learner import in_dtype
from corl.replay import Batch
from runtime.checkpoint import load_optimizer, restore_random
from runtime.errors import ConfigError, expect_range
from runtime.seeds import derive_seed

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class SACConfig:
    """Defaults are those of the published ICDG code; RLPD's are `config/online/rlpd.yaml`.

    `updates_per_step` critic updates follow each step of an environment. In every `policy_frequency`-th of them the
    actor and the temperature take `actor_updates` steps (CleanRL: `policy_frequency`, so that none is left out), in
    every `target_network_frequency`-th the targets move. `target_critics` of the `critics`, drawn at random, give the
    target (their minimum). The actor ascends the minimum of all critics, or with `actor_mean` their mean. `alpha` is
    the temperature where `autotune` does not learn it, which aims at an entropy of `entropy_per_action` times the
    action's dimension (RLPD: -0.5). `cloning` is the weight of the actor's squared error on prior data, times the mean
    value: 1 / alpha of TD3+BC.
    """

    gamma: float = 0.99
    tau: float = 0.005
    batch_size: int = 256
    policy_lr: float = 3e-4
    q_lr: float = 1e-3
    policy_frequency: int = 1
    actor_updates: int = 1
    target_network_frequency: int = 1
    updates_per_step: int = 1
    alpha: float = 0.2
    autotune: bool = True
    entropy_per_action: float = -1.0
    hidden: tuple[int, ...] = (256, 256)
    critics: int = 2
    target_critics: int = 2
    layer_norm: str = "last"
    actor_mean: bool = False
    cloning: float = 0.0

    def __post_init__(self) -> None:
        expect_range(self, "batch_size", "policy_frequency", "target_network_frequency", "updates_per_step", least=1)
        expect_range(self, "critics", "hidden", "actor_updates", least=1)
        if not 1 <= self.target_critics <= self.critics:
            raise ConfigError(f"target_critics {self.target_critics}: expected 1 to {self.critics} (critics)")
        expect_range(self, "cloning")
        expect_range(self, "alpha", "policy_lr", "q_lr", above=True)
        expect_range(self, "gamma", most=1)
        expect_range(self, "entropy_per_action", least=-math.inf)
        expect_range(self, "tau", most=1, above=True)
        if self.layer_norm not in LAYER_NORMS:
            raise ConfigError(f"layer_norm {self.layer_norm!r}: expected one of {', '.join(LAYER_NORMS)}")


def soft_target(
    actor: Network, critic_target: Network, batch: Batch, noise: Tensor, alpha: Tensor, gamma: float
) -> Tensor:
    """(B,) r + (1 - done) gamma (min Q'(s', a') - alpha log pi(a' | s')), a' from pi by `noise`.

    `critic_target`: states and actions to the values (K, B) of the critics that the minimum is of.
    """
    actions, log_density = squash(actor(batch.next_states), noise)
    values = critic_target(batch.next_states, actions).amin(dim=0)
    return batch.rewards + (1.0 - batch.dones) * gamma * (values - alpha * log_density)


def critic_loss(critic: Network, batch: Batch, target: Tensor) -> Tensor:
    """Sum over the critics of their mean squared errors to target (B,)."""
    return (critic(batch.states, batch.actions) - target).square().mean(dim=1).sum()


def actor_loss(
    actor: Network, critic: Network, batch: Batch, noise: Tensor, alpha: Tensor, *, mean: bool
) -> tuple[Tensor, Tensor]:
    """Mean of alpha log pi(a | s) - Q(s, a) with Q the critics' minimum (or mean); and log pi (B,)."""
    actions, log_density = squash(actor(batch.states), noise)
    values = critic(batch.states, actions)
    q = values.mean(dim=0) if mean else values.amin(dim=0)
    return (alpha * log_density - q).mean(), log_density.detach()


def cloning_loss(actor: Network, batch: Batch) -> Tensor:
    """Mean squared error of the mean actions."""
    return (torch.tanh(actor(batch.states)[0]) - batch.actions).square().mean()


def temperature_loss(log_alpha: Tensor, log_density: Tensor, target_entropy: float) -> Tensor:
    """-alpha (log pi + target entropy), averaged."""
    return -(log_alpha.exp() * (log_density + target_entropy)).mean()


class SAC:
    """Actor, critics and their targets, temperature, optimisers, own random numbers. `updates` counts critic steps."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: SACConfig,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("weights", seed))
            self.actor = SquashedActor(obs_dim, action_dim, config.hidden).to(device)
            self.critic = CriticEnsemble(obs_dim, action_dim, config.hidden, config.critics, config.layer_norm)
            self.critic.to(device)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.config, self.device, self.dtype, self.action_dim = config, device, dtype, action_dim
        self.log_alpha = torch.zeros((), device=device, requires_grad=config.autotune)
        if not config.autotune:
            self.log_alpha.fill_(config.alpha).log_()
        self.target_entropy = config.entropy_per_action * action_dim
        self._optimizers = {
            "actor": torch.optim.Adam(self.actor.parameters(), config.policy_lr, fused=True),
            "critic": torch.optim.Adam(self.critic.parameters(), config.q_lr, fused=True),
            "alpha": torch.optim.Adam([self.log_alpha], config.q_lr, fused=True),
        }
        self.generator = torch.Generator(device).manual_seed(derive_seed("noise", seed))
        self.updates = 0

    @torch.no_grad()
    def explore(self, observations: Tensor) -> Tensor:
        """A sample of the policy's actions (E, A) for observations (E, D)."""
        noise = torch.randn(len(observations), self.action_dim, generator=self.generator, device=self.device)
        return squash(self.actor(observations), noise)[0]

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> Tensor:
        """The mean action (B, A)."""
        return torch.tanh(self.actor(observations)[0])

    def learn(self, batches: Batch, prior: int = 0) -> dict[str, Tensor]:
        """One update per leading index of a batch (U, B, ...), of whose rows the first `prior` are prior data.

        Gives the losses of the last, as tensors.
        """
        config, count, size = self.config, len(batches.rewards), batches.rewards.shape[1]
        # All random numbers of a call at once: many small draws cost more than the products of an update.
        noise = torch.randn(
            count, 1 + config.actor_updates, size, self.action_dim, generator=self.generator, device=self.device
        )
        order = torch.rand(count, config.critics, generator=self.generator, device=self.device).argsort(dim=1)
        losses: dict[str, Tensor] = {}
        for k in range(count):
            batch = Batch(*(part[k] for part in batches))
            losses |= self.update(batch, noise[k], order[k, : config.target_critics], prior)
        return losses

    def update(self, batch: Batch, noise: Tensor, subset: Tensor, prior: int = 0) -> dict[str, Tensor]:
        """One step of critics and, when due, of actor, temperature and targets.

        noise (1 + actor_updates, B, A) standard normal.
        """
        config = self.config
        self.updates += 1
        alpha = self.log_alpha.detach().exp()
        with torch.no_grad():
            actor, target_net = self._callable(self.actor), self._callable(self.critic_target)
            target = soft_target(
                actor, lambda *inputs: target_net(*inputs, subset), batch, noise[0], alpha, config.gamma
            )
        loss = critic_loss(self._callable(self.critic), batch, target)
        self._descend("critic", loss)
        losses = {"qf_loss": loss.detach() / config.critics, "q_value": target.mean(), "alpha": alpha}
        if self.updates % config.policy_frequency == 0:
            self.critic.requires_grad_(False)
            for own in noise[1:]:
                losses |= self._update_actor(batch, own, prior, config.cloning * target.abs().mean())
            self.critic.requires_grad_(True)
        if self.updates % config.target_network_frequency == 0:
            with torch.no_grad():
                targets, sources = list(self.critic_target.parameters()), list(self.critic.parameters())
                torch._foreach_lerp_(targets, sources, config.tau)
        return losses

    def _update_actor(self, batch: Batch, noise: Tensor, prior: int, cloning_weight: Tensor) -> dict[str, Tensor]:
        """One step of the actor and, where it is learned, of the temperature."""
        config, alpha, losses = self.config, self.log_alpha.detach().exp(), {}
        actor, critic = self._callable(self.actor), self._callable(self.critic)
        loss, log_density = actor_loss(actor, critic, batch, noise, alpha, mean=config.actor_mean)
        if config.cloning and prior:
            cloning = cloning_loss(actor, Batch(*(part[:prior] for part in batch)))
            loss = loss + cloning_weight * cloning
            losses["cloning_loss"] = cloning.detach()
        self._descend("actor", loss)
        losses |= {"actor_loss": loss.detach(), "entropy": -log_density.mean()}
        if config.autotune:
            loss = temperature_loss(self.log_alpha, log_density, self.target_entropy)
            self._descend("alpha", loss)
            losses["alpha_loss"] = loss.detach()
        return losses

    def _callable(self, module: torch.nn.Module) -> Network:
        return module if self.dtype is None else in_dtype(module, dict(module.named_parameters()), self.dtype)

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor": self.actor.state_dict(),
            "critic": self.critic.state_dict(),
            "critic_target": self.critic_target.state_dict(),
            "log_alpha": self.log_alpha.detach(),
            **{f"{name}_optimizer": optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("actor", "critic", "critic_target"):
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        for name, optimizer in self._optimizers.items():
            load_optimizer(optimizer, state[f"{name}_optimizer"])
        restore_random(self.generator, state["generator"], state["updates"])
        self.updates = state["updates"]
