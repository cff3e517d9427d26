"""Soft actor-critic (Haarnoja et al. 2018) with a learned temperature, and what RLPD (Ball et al. 2023) adds to it.

RLPD's additions are options: LayerNorm in the critics, an ensemble of them of which a random few give the target, many
updates per step of the environment. Its symmetric sampling is in `corl.rlpd`. Cloning of the prior data by the actor is
not RLPD's, but that of TD3+BC (Fujimoto and Gu 2021), and an option too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corl.batch import Batch
from corl.learner import Learner, Noise
from corl.networks import LAYER_NORMS, CriticEnsemble, SquashedActor
from corl.stacking import Networks
from runtime.checks import expect_range
from runtime.errors import ConfigError

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class SACConfig:
    """Defaults are those of the published ICDG code; RLPD's are `config/online/rlpd.yaml`.

    In every `policy_frequency`-th update of the critics actor and temperature take `actor_updates` steps (CleanRL:
    `policy_frequency`, so that none is left out), in every `target_network_frequency`-th the targets move.
    `target_critics` of the `critics`, drawn at random, give the target (their minimum). The actor ascends the minimum
    of all critics, or with `actor_mean` their mean. `alpha` is the temperature where `autotune` does not learn it,
    which aims at an entropy of `entropy_per_action` times the action's dimension (RLPD: -0.5). `cloning` is the weight
    of the actor's squared error on prior data, times the mean value: 1 / alpha of TD3+BC.
    """

    discount: float = 0.99
    tau: float = 0.005
    policy_lr: float = 3e-4
    q_lr: float = 1e-3
    policy_frequency: int = 1
    actor_updates: int = 1
    target_network_frequency: int = 1
    alpha: float = 0.2
    autotune: bool = True
    entropy_per_action: float = -1.0
    hidden_dims: tuple[int, ...] = (256, 256)
    critics: int = 2
    target_critics: int = 2
    layer_norm: str = "last"
    actor_mean: bool = False
    cloning: float = 0.0

    def __post_init__(self) -> None:
        expect_range(self, "policy_frequency", "actor_updates", "target_network_frequency", "critics", least=1)
        expect_range(self, "hidden_dims", least=1)
        if not 1 <= self.target_critics <= self.critics:
            raise ConfigError(f"target_critics {self.target_critics}: expected 1 to {self.critics} (critics)")
        expect_range(self, "cloning")
        expect_range(self, "alpha", "policy_lr", "q_lr", above=True)
        expect_range(self, "discount", most=1)
        expect_range(self, "entropy_per_action", least=-math.inf)
        expect_range(self, "tau", most=1, above=True)
        if self.layer_norm not in LAYER_NORMS:
            raise ConfigError(f"layer_norm {self.layer_norm!r}: expected one of {', '.join(LAYER_NORMS)}")


def squash(gaussian: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Actions (B, A) = tanh(mean + std noise) and their log-densities (B,), from (2, B, A) and standard normal noise.

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)) is exact where the direct form rounds to log 0.
    """
    mean, log_std = gaussian.unbind(0)
    raw = mean + log_std.exp() * noise
    log_density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squashing = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return torch.tanh(raw), (log_density - squashing).sum(dim=-1)


def soft_target(
    actor: Network, critic_target: Network, batch: Batch, noise: Tensor, alpha: Tensor, discount: float
) -> Tensor:
    """(B,) r + (1 - done) discount (min Q'(s', a') - alpha log pi(a' | s')), a' from pi by `noise`.

    `critic_target`: states and actions to the values (K, B) of the critics that the minimum is of.
    """
    actions, log_density = squash(actor(batch.next_states), noise)
    values = critic_target(batch.next_states, actions).amin(dim=0)
    return batch.rewards + (1.0 - batch.dones) * discount * (values - alpha * log_density)


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
    return (torch.tanh(actor(batch.states, True)[0]) - batch.actions).square().mean()


def temperature_loss(log_alpha: Tensor, log_density: Tensor, target_entropy: float) -> Tensor:
    """-alpha (log pi + target entropy), averaged."""
    return -(log_alpha.exp() * (log_density + target_entropy)).mean()


class Temperature(nn.Module):
    """The logarithm of the entropy's weight."""

    float32 = ("log_alpha",)

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(alpha).log_())

    def forward(self) -> Tensor:
        return self.log_alpha


class SAC(Learner):
    """Actor, critics and their targets, temperature. It acts and learns online (`corl.online.Agent`), or offline."""

    Config = SACConfig
    trained = ("actor", "critic", "temperature")
    targets = ("critic",)

    @classmethod
    def network(cls, name: str, state_dim: int, action_dim: int, config: SACConfig, seed: int = 0) -> nn.Module:
        if name == "actor":
            return SquashedActor(state_dim, action_dim, config.hidden_dims)
        if name == "critic":
            return CriticEnsemble(state_dim, action_dim, config.hidden_dims, config.critics, config.layer_norm)
        return Temperature(1.0 if config.autotune else config.alpha)

    def learning_rate(self, name: str) -> float:
        return float(self.config.policy_lr if name == "actor" else self.config.q_lr)

    @torch.no_grad()
    def explore(self, observations: Tensor) -> Tensor:
        """A sample of the policy's actions (E, A) for observations (E, D)."""
        gaussian = self.actor(observations, True)
        noise = torch.randn(gaussian.shape[1:], generator=self.generator, device=self.device)
        return squash(gaussian, noise)[0]

    @torch.no_grad()
    def greedy(self, observations: Tensor) -> Tensor:
        """The mean action (B, A)."""
        actions: Tensor = self.actor(observations)
        return actions

    def draw(self, steps: int, batch_size: int, action_dim: int) -> Noise:
        """Standard normal noise (K, 1 + actor_updates, B, A) on actions; the target's critics (K, target_critics)."""
        config, random, device = self.config, self.generator, self.device
        shape = (steps, 1 + config.actor_updates, batch_size, action_dim)
        noise = torch.randn(shape, generator=random, device=device)
        order = torch.rand(steps, config.critics, generator=random, device=device).argsort(dim=1)
        return noise, order[:, : config.target_critics]

    def learn(self, batches: Batch, prior: int = 0) -> dict[str, Tensor]:
        """One update per leading index of a batch (U, B, ...), of whose rows the first `prior` are prior data.

        Gives the losses of the last, as tensors.
        """
        count, size, action_dim = batches.actions.shape
        noise = self.draw(count, size, action_dim)
        losses: dict[str, Tensor] = {}
        for k in range(count):
            self.total_it += 1
            batch = Batch(*(part[k] for part in batches))
            own = tuple(values[k] for values in noise)
            losses |= self.step(self.networks, batch, own, self.total_it, prior)
        return losses

    def step(self, networks: Networks, batch: Batch, noise: Noise, number: int, prior: int = 0) -> dict[str, Tensor]:
        """One step of the critics and, when due, of actor, temperature and targets."""
        config = self.config

        def of_target(
            actor: Network, critic: Network, batch: Batch, noise: Tensor, which: Tensor, alpha: Tensor
        ) -> tuple[Tensor, Tensor]:
            target = soft_target(
                _gaussian(actor), lambda *inputs: critic(*inputs, which), batch, noise[0], alpha, config.discount
            )
            return target, target.mean()

        alpha = networks.call(_alpha, ("temperature",))
        target, q_value = networks.call(of_target, ("actor", "critic_target"), batch, *noise, alpha)
        loss = networks.call(critic_loss, ("critic",), batch, target, learn="critic")
        networks.gradient_step("critic", loss)
        losses = {"qf_loss": loss.detach() / config.critics, "q_value": q_value, "alpha": alpha}
        if number % config.policy_frequency == 0:
            for k in range(1, 1 + config.actor_updates):
                losses |= self._actor_step(networks, batch, noise[0], k, target, prior if config.cloning else 0)
        if number % config.target_network_frequency == 0:
            networks.polyak_update(("critic",), config.tau)
        return losses

    def _actor_step(
        self, networks: Networks, batch: Batch, noise: Tensor, k: int, target: Tensor, cloned: int
    ) -> dict[str, Tensor]:
        """One step of the actor by the k-th noise and, where it is learned, of the temperature."""
        config = self.config

        def of_actor(
            actor: Network, critic: Network, clone: Network, batch: Batch, noise: Tensor, alpha: Tensor, target: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            loss, log_density = actor_loss(_gaussian(actor), critic, batch, noise[k], alpha, mean=config.actor_mean)
            cloning = torch.zeros_like(loss)
            if cloned:
                cloning = cloning_loss(clone, Batch(*(part[:cloned] for part in batch)))
                loss = loss + config.cloning * target.abs().mean() * cloning
            return loss, log_density, -log_density.mean(), cloning

        def of_temperature(temperature: Network, log_density: Tensor) -> Tensor:
            target_entropy = config.entropy_per_action * batch.actions.shape[-1]
            return temperature_loss(temperature(), log_density, target_entropy)

        alpha = networks.call(_alpha, ("temperature",))
        inputs = (batch, noise, alpha, target)
        loss, log_density, entropy, cloning = networks.call(
            of_actor, ("actor", "critic", "actor"), *inputs, learn="actor"
        )
        networks.gradient_step("actor", loss)
        losses = {"actor_loss": loss.detach(), "entropy": entropy}
        losses |= {"cloning_loss": cloning.detach()} if cloned else {}
        if config.autotune:
            loss = networks.call(of_temperature, ("temperature",), log_density, learn="temperature")
            networks.gradient_step("temperature", loss)
            losses["alpha_loss"] = loss.detach()
        return losses


def _alpha(temperature: Network) -> Tensor:
    return temperature().exp()


def _gaussian(actor: Network) -> Network:
    """The actor's distribution."""
    return lambda observations: actor(observations, True)
