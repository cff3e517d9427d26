"""DSRL-NA: steering with a critic on the executed actions (arXiv 2506.15799, noise aliasing).

Many noises give the same actions. A critic Q_A(s, a) learns from executed chunks, whoever executed them; the critic
Q_W(s, w) that the actor follows is distilled from it at noise drawn from the prior.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.utils import polyak_update
from torch.nn import functional as F

from dsrl.diffusion_policy import DiffusionPolicy


class NoiseAliasingSAC(SAC):
    """SAC whose replay buffer holds executed chunks; `critic` is Q_W, `action_critic` Q_A.

    Saved files have the networks of a plain SAC as well and load as one: acting needs the actor alone.
    """

    def __init__(self, *args: Any, distill_steps: int = 2, **options: Any) -> None:
        self.distill_steps = distill_steps
        self.diffusion: DiffusionPolicy | None = None
        super().__init__(*args, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.action_critic = copy.deepcopy(self.critic)
        self.action_critic_target = copy.deepcopy(self.critic_target)
        self.action_critic_optimizer = torch.optim.Adam(self.action_critic.parameters(), lr=self.lr_schedule(1))

    def _excluded_save_params(self) -> list[str]:
        # Of a policy that is saved for acting, the plain SAC part alone is written.
        return [
            *super()._excluded_save_params(),
            "diffusion",
            *(f"action_critic{x}" for x in ("", "_target", "_optimizer")),
        ]

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos) -> None:
        """Keeps the executed chunk in place of the noise."""
        chunks = np.stack([info["chunk"] for info in infos])
        super()._store_transition(replay_buffer, chunks, new_obs, reward, dones, infos)

    def _denoise_scaled(self, observations: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        """Chunks (B, 28) of noise that is scaled to [-1, 1]."""
        high = torch.as_tensor(self.action_space.high, device=scaled.device)
        return self.diffusion.denoise(observations, scaled * high)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        self.policy.set_training_mode(True)
        optimizers = [self.actor.optimizer, self.critic.optimizer, self.action_critic_optimizer]
        self._update_learning_rate([*optimizers, *([self.ent_coef_optimizer] if self.ent_coef_optimizer else [])])
        logged: dict[str, list[torch.Tensor]] = {
            "critic_loss": [],
            "distill_loss": [],
            "actor_loss": [],
            "ent_coef": [],
        }
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size)
            logged["ent_coef"].append(self._entropy_coefficient(data.observations))
            logged["critic_loss"].append(self._update_action_critic(data, logged["ent_coef"][-1]))
            logged["distill_loss"] += [self._distill(data.observations) for _ in range(self.distill_steps)]
            logged["actor_loss"].append(self._update_actor(data.observations, logged["ent_coef"][-1]))
            polyak_update(self.action_critic.parameters(), self.action_critic_target.parameters(), self.tau)
        self._n_updates += gradient_steps
        for name, values in logged.items():
            self.logger.record(f"train/{name}", torch.stack(values).mean().item())

    def _entropy_coefficient(self, observations: torch.Tensor) -> torch.Tensor:
        """alpha, after a step towards the target entropy where it is learned."""
        if self.ent_coef_optimizer is None:
            return self.ent_coef_tensor
        with torch.no_grad():
            _, log_prob = self.actor.action_log_prob(observations)
        loss = -(self.log_ent_coef * (log_prob + self.target_entropy)).mean()
        self.ent_coef_optimizer.zero_grad()
        loss.backward()
        self.ent_coef_optimizer.step()
        return self.log_ent_coef.detach().exp().squeeze()

    def _update_action_critic(self, data: Any, alpha: torch.Tensor) -> torch.Tensor:
        """One step of Q_A on r + gamma (min Q_A'(s', DDIM(s', w')) - alpha log pi(w'|s')), w' ~ pi."""
        with torch.no_grad():
            w, log_prob = self.actor.action_log_prob(data.next_observations)
            chunk = self._denoise_scaled(data.next_observations, w)
            values = torch.cat(self.action_critic_target(data.next_observations, chunk), dim=1).amin(
                dim=1, keepdim=True
            )
            values = values - alpha * log_prob[:, None]
            target = data.rewards + (1 - data.dones) * self.gamma * values
        loss = 0.5 * sum(F.mse_loss(q, target) for q in self.action_critic(data.observations, data.actions))
        self.action_critic_optimizer.zero_grad()
        loss.backward()
        self.action_critic_optimizer.step()
        return loss.detach()

    def _distill(self, observations: torch.Tensor) -> torch.Tensor:
        """One step of Q_W(s, w) towards Q_A(s, DDIM(s, w)) at w ~ N(0, I) within the noise's bounds."""
        high = torch.as_tensor(self.action_space.high, device=observations.device)
        w = torch.randn(len(observations), high.shape[0], device=observations.device).clamp(-high, high)
        with torch.no_grad():
            targets = self.action_critic(observations, self.diffusion.denoise(observations, w))
        values = self.critic(observations, w / high)
        loss = 0.5 * sum(F.mse_loss(q, target) for q, target in zip(values, targets, strict=True))
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        return loss.detach()

    def _update_actor(self, observations: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        w, log_prob = self.actor.action_log_prob(observations)
        values = torch.cat(self.critic(observations, w), dim=1).amin(dim=1, keepdim=True)
        loss = (alpha * log_prob[:, None] - values).mean()
        self.actor.optimizer.zero_grad()
        loss.backward()
        self.actor.optimizer.step()
        return loss.detach()
