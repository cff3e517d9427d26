"""DSRL-SAC: stable-baselines3's SAC over the noise, with a faster update and all of its state in one dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from torch import Tensor, nn

from corl.ensembles import squash
from corl.replay import Batch
from corl.sac import actor_loss, critic_loss, soft_target, temperature_loss
from dsrl.diffusion_policy import DiffusionPolicy
from runtime.checkpoint import load_optimizer, restore_random
from runtime.seeds import derive_seed, rng

_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class NoiseSAC(SAC):
    """SAC whose `train` is the update of `corl.sac` on stable-baselines3's networks.

    The critics' layers are multiplied as one batch, the temperature learns from the actor's sample, and with
    `policy_delay` actor and temperature learn in every so many updates. Rewards are multiplied by `reward_scale`, and
    a critic's target counts those of `decisions_ahead` decisions. All random numbers come from generators of its own,
    so that `state` and `restore` continue a run to the last bit. What `save` writes is a plain SAC.
    """

    def __init__(
        self, *args: Any, policy_delay: int = 1, reward_scale: float = 1.0, decisions_ahead: int = 1, **options: Any
    ) -> None:
        self.policy_delay, self.reward_scale, self.decisions_ahead = policy_delay, reward_scale, decisions_ahead
        self.diffusion: DiffusionPolicy | None = None
        self.losses: dict[str, float] = {}
        super().__init__(*args, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.generator = torch.Generator(self.device).manual_seed(derive_seed("noise-sac", self.seed or 0))
        self.rows = rng("noise-sac-rows", self.seed or 0)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "diffusion", "generator", "rows"]

    def gaussian(self, observations: Tensor) -> Tensor:
        """Means and log standard deviations (2, B, A) before the squashing."""
        mean, log_std, _ = self.actor.get_action_dist_params(observations)
        return torch.stack([mean, log_std])

    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Samples of the actor's noise (E, A), within the bounds of the action space."""
        with torch.no_grad():
            seen = torch.as_tensor(observations, device=self.device)
            scaled = squash(self.gaussian(seen), self._normal(len(seen)))[0]
        return self.policy.unscale_action(scaled.cpu().numpy())

    def sample(self, batch_size: int) -> Batch:
        """Rows of the replay buffer; the end of time is not the end of the task.

        Reward and next state are those of `decisions_ahead` decisions, fewer where the episode or the buffer ends. What
        is left of the next state's value, (1 - end) gamma^(k - 1) after k decisions, is the batch's 1 - done.
        """
        buffer = self.replay_buffer
        step = self.rows.integers(buffer.size(), size=batch_size)
        env = self.rows.integers(buffer.n_envs, size=batch_size)
        rewards, last, left = buffer.rewards[step, env], step, np.ones(batch_size, np.float32)
        for _ in range(1, self.decisions_ahead):
            after = (last + 1) % buffer.buffer_size
            goes_on = (buffer.dones[last, env] == 0) & (after != buffer.pos)
            left = np.where(goes_on, left * np.float32(self.gamma), left)
            last = np.where(goes_on, after, last)
            rewards = rewards + goes_on * left * buffer.rewards[last, env]
        left = left * (1 - buffer.dones[last, env] * (1 - buffer.timeouts[last, env]))
        arrays = (
            buffer.observations[step, env],
            buffer.actions[step, env],
            rewards * np.float32(self.reward_scale),
            buffer.next_observations[last, env],
            1 - left,
        )
        return Batch(*(torch.from_numpy(array).to(self.device) for array in arrays))

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """`losses` has those of the last step afterwards."""
        losses: dict[str, Tensor] = {}
        for _ in range(gradient_steps):
            batch = self.sample(batch_size)
            losses |= self.update_critics(batch, self.alpha())
            if self._n_updates % self.policy_delay == 0:
                losses |= self.update_actor(batch.states, self.alpha())
            self._n_updates += 1
        self.losses = {name: float(value) for name, value in losses.items()}

    def alpha(self) -> Tensor:
        """The entropy's weight."""
        return self.ent_coef_tensor if self.ent_coef_optimizer is None else self.log_ent_coef.detach().exp().squeeze()

    def update_critics(self, batch: Batch, alpha: Tensor) -> dict[str, Tensor]:
        """One step of the critics on r + gamma (min Q'(s', w') - alpha log pi(w' | s')), w' ~ pi; then the targets.

        With r and s' of several decisions the entropy of those between is left out, and that they were taken by an
        older actor is not corrected.
        """
        with torch.no_grad():
            noise = self._normal(len(batch.states))
            target = soft_target(self.gaussian, stacked(self.critic_target.q_networks), batch, noise, alpha, self.gamma)
        loss = critic_loss(stacked(self.critic.q_networks), batch, target)
        descend(self.critic.optimizer, loss)
        follow(self.critic_target, self.critic, self.tau)
        return {"critic_loss": loss.detach(), "q_value": target.mean()}

    def update_actor(self, observations: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        """One step of the actor on alpha log pi(w | s) - min Q(s, w), and of alpha where it is learned."""
        self.critic.requires_grad_(False)
        batch = Batch(observations, *[observations] * 4)
        loss, log_density = actor_loss(
            self.gaussian, stacked(self.critic.q_networks), batch, self._normal(len(observations)), alpha, mean=False
        )
        descend(self.actor.optimizer, loss)
        self.critic.requires_grad_(True)
        if self.ent_coef_optimizer is not None:
            descend(self.ent_coef_optimizer, temperature_loss(self.log_ent_coef, log_density, self.target_entropy))
        return {"actor_loss": loss.detach(), "ent_coef": alpha, "entropy": -log_density.mean()}

    def _normal(self, count: int) -> Tensor:
        return torch.randn(count, self.action_space.shape[0], generator=self.generator, device=self.device)

    def _learned(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What has a state dict that training changes."""
        parts = {
            "policy": self.policy,
            "actor_optimizer": self.actor.optimizer,
            "critic_optimizer": self.critic.optimizer,
        }
        return parts if self.ent_coef_optimizer is None else {**parts, "alpha_optimizer": self.ent_coef_optimizer}

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, of plain values and tensors."""
        buffer = self.replay_buffer
        filled = buffer.size()
        return {
            **self.learned(),
            "buffer": {name: torch.from_numpy(getattr(buffer, name)[:filled]) for name in _BUFFER},
            "buffer_at": [buffer.pos, buffer.full],
            "counters": [self.num_timesteps, self._n_updates],
            "losses": self.losses,
            "generator": self.generator.get_state(),
            "rows": self.rows.bit_generator.state,
        }

    def learned(self) -> dict[str, Any]:
        """Weights, the states of their optimisers, the entropy's weight."""
        weight = None if self.ent_coef_optimizer is None else self.log_ent_coef.detach()
        return {**{name: part.state_dict() for name, part in self._learned().items()}, "log_ent_coef": weight}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._learned().items():
            if isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
        if self.ent_coef_optimizer is not None:
            self.log_ent_coef.data.copy_(state["log_ent_coef"])
        for name, values in state["buffer"].items():
            getattr(self.replay_buffer, name)[: len(values)] = values
        self.replay_buffer.pos, self.replay_buffer.full = state["buffer_at"]
        self.num_timesteps, self._n_updates = state["counters"]
        self.losses = state["losses"]
        restore_random(self.generator, state["generator"], self.num_timesteps)
        self.rows.bit_generator.state = state["rows"]


def stacked(q_networks: list[nn.Sequential]) -> Any:
    """Q-functions of equal shape as one: (states (B, S), actions (B, A)) to values (count, B).

    A batched matrix product per layer in place of one for each network; gradients reach the networks' own weights.
    """

    def values(states: Tensor, actions: Tensor) -> Tensor:
        hidden = torch.cat([states, actions], dim=1).expand(len(q_networks), -1, -1)
        for layers in zip(*q_networks, strict=True):
            if isinstance(layers[0], nn.Linear):
                weight = torch.stack([layer.weight for layer in layers])
                bias = torch.stack([layer.bias for layer in layers])
                hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
            else:
                hidden = layers[0](hidden)
        return hidden[..., 0]

    return values


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, tau: float) -> None:
    """target += tau (source - target)."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
