"""DSRL-NA: steering with a critic on the executed actions (arXiv 2506.15799, noise aliasing).

Many noises give the same actions. A critic Q_A(s, a) learns from executed chunks, whoever executed them; the critic
Q_W(s, w) that the actor follows is distilled from it at noise drawn from the prior.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor, nn
from torch.nn import functional as F

from corl.sac import critic_loss, squash
from dsrl.chunk_memory import ChunkMemory
from dsrl.critics import stacked
from dsrl.decisions import Drawn, OfflineDecisions
from dsrl.noise_sac import NoiseSAC, descend, polyak_update
from dsrl.steerable import SteerablePolicy


@dataclass(frozen=True)
class Distillation:
    """How Q_W learns from Q_A, and how often the frozen policy is asked. Defaults are the public DSRL code's.

    `steps` of Q_W follow each of Q_A. With `pairs` above 0 so many noises of the prior are denoised once for each
    decision, when it is stored, and the steps take these; with 0 each step draws new ones. `refresh_share` of a batch
    get their next chunk from the present actor, those first for which that was longest ago; the others have the last
    one that they got, with its density then: a sample of an actor that is behind, as the target critics are.
    """

    steps: int = 10
    pairs: int = 0
    refresh_share: float = 1.0


class NoiseAliasingSAC(NoiseSAC):
    """SAC whose replay buffer holds executed chunks (C,); `critic` is Q_W, `action_critic` Q_A.

    Saved files have the networks of a plain SAC as well and load as one: acting needs the actor alone.
    """

    def __init__(
        self, *args: Any, frozen: SteerablePolicy, distillation: Distillation | None = None, **options: Any
    ) -> None:
        self.distillation, self.frozen = distillation or Distillation(), frozen
        super().__init__(*args, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        chunk_dim, buffer = self.frozen.chunk_dim, self.replay_buffer
        self.action_critic = copy.deepcopy(self.critic)
        self.action_critic_target = copy.deepcopy(self.critic_target)
        if chunk_dim != self.action_space.shape[0]:
            chunks = gymnasium.spaces.Box(-1.0, 1.0, (chunk_dim,), np.float32)
            self.policy.critic_kwargs["action_space"] = chunks
            self.action_critic, self.action_critic_target = self.policy.make_critic(), self.policy.make_critic()
            self.policy.critic_kwargs["action_space"] = self.action_space
            self.action_critic_target.load_state_dict(self.action_critic.state_dict())
            buffer.action_dim = chunk_dim
            buffer.actions = np.zeros((buffer.buffer_size, buffer.n_envs, chunk_dim), np.float32)
        self.action_critic_target.requires_grad_(False)
        self.action_critic_optimizer = torch.optim.Adam(
            self.action_critic.parameters(), lr=self.lr_schedule(1), fused=True
        )
        sizes = (self.action_space.shape[0], chunk_dim)
        self.memory = ChunkMemory(0, buffer, self.distillation.pairs, sizes)

    def _excluded_save_params(self) -> list[str]:
        # Of a policy that is saved for acting, the plain SAC part alone is written.
        own = [f"action_critic{x}" for x in ("", "_target", "_optimizer")]
        return [*super()._excluded_save_params(), *own, "distillation", "frozen", "memory"]

    def take_offline(self, offline: OfflineDecisions) -> None:
        """Learn from decisions (chunks as actions) that were recorded elsewhere too; before anything is stored."""
        self.offline = offline
        sizes = (self.action_space.shape[0], self.frozen.chunk_dim)
        self.memory = ChunkMemory(offline.size(), self.replay_buffer, self.distillation.pairs, sizes)
        self._remember_pairs(np.arange(offline.size()), offline.observations[:, 0])

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Keeps the executed chunk in place of the noise."""
        assert isinstance(self._last_obs, np.ndarray)  # the environments were reset, and their space is a Box
        chunks = np.stack([info["chunk"] for info in infos])
        rows = self.offline_rows + replay_buffer.pos * replay_buffer.n_envs + np.arange(replay_buffer.n_envs)
        self.memory.forget(rows)
        self._remember_pairs(rows, self._last_obs)
        super()._store_transition(replay_buffer, chunks, new_obs, reward, dones, infos)

    def _remember_pairs(self, rows: np.ndarray, observations: np.ndarray) -> None:
        """Denoise the prior's noise for stored observations (B, F), all as one batch."""
        pairs = self.distillation.pairs
        if pairs and len(rows):
            seen = torch.as_tensor(np.repeat(observations, pairs, axis=0), device=self.device)
            w = self._prior(len(seen))
            self.memory.put_pairs(rows, w.cpu().numpy(), self.frozen.denoise(seen, w).cpu().numpy())

    def _prior(self, count: int) -> Tensor:
        """(count, W) N(0, I) within the noise's bounds."""
        return self._normal(count).clamp(-self._bound, self._bound)

    def update_critics(self, drawn: Drawn, alpha: Tensor) -> dict[str, Tensor]:
        """One step of Q_A on r + gamma (Q_A'(s', DDIM(s', w')) - alpha log pi(w'|s')), w' ~ pi; then of Q_W."""
        batch = drawn.batch
        chunk, log_density = self._next_chunks(drawn)
        with torch.no_grad():
            value = self._backup(self.action_critic_target)(batch.next_states, chunk)
            target = self._target(batch, value, log_density, alpha)
        loss = critic_loss(stacked(self.action_critic.q_networks), batch, target)
        descend(self.action_critic_optimizer, loss)
        polyak_update(self.action_critic_target, self.action_critic, self.tau)
        distilled = self.distill(drawn, self.distillation.steps)
        return {"critic_loss": loss.detach(), "q_value": target.mean(), "distill_loss": distilled.mean()}

    @torch.no_grad()
    def _next_chunks(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """The actor's chunks (B, C) in the next states and their log densities (B,)."""
        seen, share = drawn.batch.next_states, self.distillation.refresh_share
        if share == 1:
            w, log_density = squash(self.gaussian(seen), self._normal(len(seen)))
            return self.frozen.denoise(seen, w * self._bound), log_density
        due = self.memory.longest_ago(drawn.next_rows, max(1, round(share * len(seen))))
        w, log_density = squash(self.gaussian(seen[due]), self._normal(len(due)))
        chunks = self.frozen.denoise(seen[due], w * self._bound)
        self.memory.put_next(drawn.next_rows[due], chunks.cpu().numpy(), log_density.cpu().numpy(), self._n_updates)
        return self.memory.next(drawn.next_rows, self.device)

    def distill(self, drawn: Drawn, steps: int = 1) -> Tensor:
        """Steps of Q_W(s, w) towards Q_A(s, DDIM(s, w)) at w ~ N(0, I) within the noise's bounds.

        Returns their losses (steps,). Q_A stays as it is meanwhile: its values are computed for all steps at once.
        """
        states = drawn.batch.states
        repeated, count = states.repeat(steps, 1), steps * len(states)
        if self.distillation.pairs:
            number = self.rows.integers(self.distillation.pairs, size=count)
            w, chunks = self.memory.pairs(np.tile(drawn.rows, steps), number, self.device)
        else:
            w = self._prior(count)
            chunks = self.frozen.denoise(repeated, w)
        with torch.no_grad():
            targets = stacked(self.action_critic.q_networks)(repeated, chunks)
        losses = []
        for noise, wanted in zip((w / self._bound).split(len(states)), targets.split(len(states), dim=1), strict=True):
            loss = F.mse_loss(stacked(self.critic.q_networks)(states, noise), wanted)
            descend(self.critic.optimizer, loss)
            losses.append(loss.detach())
        return torch.stack(losses)

    @property
    def _bound(self) -> Tensor:
        return torch.as_tensor(self.action_space.high, device=self.device)

    def _learned(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            **super()._learned(),
            **{f"action_critic{x}": getattr(self, f"action_critic{x}") for x in ("", "_target", "_optimizer")},
        }

    def state(self) -> dict[str, Any]:
        filled = self.offline_rows + self.replay_buffer.size() * self.replay_buffer.n_envs
        return {**super().state(), "chunks": self.memory.state(filled)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore({name: value for name, value in state.items() if name != "chunks"})
        self.memory.restore(state["chunks"])
