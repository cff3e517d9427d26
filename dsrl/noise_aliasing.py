"""DSRL-NA: steering with a critic on the executed actions (arXiv 2506.15799, noise aliasing).

Many noises give the same actions. A critic Q_A(s, a) learns from executed chunks, whoever executed them; the critic
Q_W(s, w) that the actor follows is distilled from it at noise drawn from the prior.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corl.ensembles import squash
from corl.replay import Batch
from corl.sac import critic_loss
from dsrl.noise_sac import NoiseSAC, descend, follow, stacked


class NoiseAliasingSAC(NoiseSAC):
    """SAC whose replay buffer holds executed chunks; `critic` is Q_W, `action_critic` Q_A.

    `diffusion` is the frozen policy, to be set before training. Saved files have the networks of a plain SAC as well
    and load as one: acting needs the actor alone.
    """

    def __init__(self, *args: Any, distill_steps: int = 2, **options: Any) -> None:
        self.distill_steps = distill_steps
        super().__init__(*args, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.action_critic = copy.deepcopy(self.critic)
        self.action_critic_target = copy.deepcopy(self.critic_target)
        self.action_critic_optimizer = torch.optim.Adam(
            self.action_critic.parameters(), lr=self.lr_schedule(1), fused=True
        )

    def _excluded_save_params(self) -> list[str]:
        # Of a policy that is saved for acting, the plain SAC part alone is written.
        return [
            *super()._excluded_save_params(),
            *(f"action_critic{x}" for x in ("", "_target", "_optimizer")),
        ]

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos) -> None:
        """Keeps the executed chunk in place of the noise."""
        chunks = np.stack([info["chunk"] for info in infos])
        super()._store_transition(replay_buffer, chunks, new_obs, reward, dones, infos)

    def update_critics(self, batch: Batch, alpha: Tensor) -> dict[str, Tensor]:
        """One step of Q_A on r + gamma (min Q_A'(s', DDIM(s', w')) - alpha log pi(w'|s')), w' ~ pi; then of Q_W."""
        with torch.no_grad():
            w, log_density = squash(self.gaussian(batch.next_states), self._normal(len(batch.states)))
            chunk = self.diffusion.denoise(batch.next_states, w * self._bound)
            values = stacked(self.action_critic_target.q_networks)(batch.next_states, chunk).amin(dim=0)
            target = batch.rewards + (1 - batch.dones) * self.gamma * (values - alpha * log_density)
        loss = critic_loss(stacked(self.action_critic.q_networks), batch, target)
        descend(self.action_critic_optimizer, loss)
        follow(self.action_critic_target, self.action_critic, self.tau)
        distilled = [self.distill(batch.states) for _ in range(self.distill_steps)]
        return {"critic_loss": loss.detach(), "q_value": target.mean(), "distill_loss": torch.stack(distilled).mean()}

    def distill(self, observations: Tensor) -> Tensor:
        """One step of Q_W(s, w) towards Q_A(s, DDIM(s, w)) at w ~ N(0, I) within the noise's bounds."""
        high = self._bound
        w = self._normal(len(observations)).clamp(-high, high)
        with torch.no_grad():
            targets = stacked(self.action_critic.q_networks)(observations, self.diffusion.denoise(observations, w))
        loss = F.mse_loss(stacked(self.critic.q_networks)(observations, w / high), targets)
        descend(self.critic.optimizer, loss)
        return loss.detach()

    @property
    def _bound(self) -> Tensor:
        return torch.as_tensor(self.action_space.high, device=self.device)

    def _learned(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            **super()._learned(),
            **{f"action_critic{x}": getattr(self, f"action_critic{x}") for x in ("", "_target", "_optimizer")},
        }
