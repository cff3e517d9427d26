"""DSRL-SAC: stable-baselines3's SAC over the noise, with a faster update and all of its state in one dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import ContinuousCritic
from torch import Tensor, nn

from corl.batch import Batch
from corl.sac import actor_loss, critic_loss, squash, temperature_loss
from dsrl.critics import Values, backed_up, stacked
from dsrl.decisions import Decisions, Drawn, OfflineDecisions, n_step
from runtime.checkpoint import load_optimizer, restore_random
from runtime.seeds import derive_seed, rng

BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of stable-baselines3's replay buffer."""


@dataclass(frozen=True)
class UpdateRule:
    """What an update does. Defaults are those of the public DSRL code but for `policy_delay` and `reward_scale`.

    Actor and temperature learn in every `policy_delay`-th update. Rewards are multiplied by `reward_scale`; a target
    counts those of `n_step` decisions. `backup`: the target takes the critics' `min`, `mean`, or the minimum of a
    random `subset` of `backup_critics`; the actor ascends their minimum with `min`, else their mean. Without
    `backup_entropy` the target leaves the entropy out. `offline_share` of a batch are offline decisions; 0: as many as
    their number says.
    """

    policy_delay: int = 1
    reward_scale: float = 1.0
    n_step: int = 1
    backup: str = "min"
    backup_critics: int = 2
    backup_entropy: bool = True
    offline_share: float = 0.0


class NoiseSAC(SAC):
    """SAC whose `train` is the update of `corl.sac` on stable-baselines3's networks, as its `rule` says.

    The critics' layers are multiplied as one batch, and the temperature learns from the actor's sample. All random
    numbers come from generators of its own, so that `state` and `restore` continue a run to the last bit. What `save`
    writes is a plain SAC. `offline` decisions, to be set before training, are sampled beside the replay buffer's.
    """

    action_space: gymnasium.spaces.Box
    replay_buffer: ReplayBuffer
    target_entropy: float

    def __init__(self, *args: Any, rule: UpdateRule | None = None, **options: Any) -> None:
        self.rule = rule or UpdateRule()
        self.offline: OfflineDecisions | None = None
        self.losses: dict[str, float] = {}
        super().__init__(*args, **options)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.generator = torch.Generator(self.device).manual_seed(derive_seed("noise-sac", self.seed or 0))
        self.rows = rng("noise-sac-rows", self.seed or 0)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "rule", "offline", "generator", "rows"]

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

    @property
    def offline_rows(self) -> int:
        """How many offline decisions there are; row numbers of the replay buffer begin after them."""
        return 0 if self.offline is None else self.offline.size()

    def sample(self, batch_size: int) -> Drawn:
        """Rows of the replay buffer and of the offline decisions; the end of time is not the end of the task.

        Reward and next state are those of `n_step` decisions; what is left of the next state's value after them is the
        batch's 1 - done.
        """
        count = self._offline_count(batch_size)
        sources = ((self.offline, count, 0), (self.replay_buffer, batch_size - count, self.offline_rows))
        parts = [self._draw(*source) for source in sources if source[1]]
        *arrays, rows, next_rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        batch = Batch(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return Drawn(batch, rows, next_rows)

    def _offline_count(self, batch_size: int) -> int:
        """How many of a batch are offline decisions."""
        if not self.offline_rows:
            return 0
        if not self.replay_buffer.size():
            return batch_size
        if self.rule.offline_share:
            return round(batch_size * self.rule.offline_share)
        own = self.replay_buffer.size() * self.replay_buffer.n_envs
        return int(self.rows.binomial(batch_size, self.offline_rows / (self.offline_rows + own)))

    def _draw(self, stored: Decisions, count: int, first: int) -> tuple[np.ndarray, ...]:
        """`count` rows at random: a batch's arrays, then numbers of rows and of next rows, counted from `first`."""
        step = self.rows.integers(stored.size(), size=count)
        env = self.rows.integers(stored.n_envs, size=count)
        rewards, last, left = n_step(stored, step, env, self.rule.n_step, self.gamma)
        return (
            stored.observations[step, env],
            stored.actions[step, env],
            rewards * np.float32(self.rule.reward_scale),
            stored.next_observations[last, env],
            1 - left,
            first + step * stored.n_envs + env,
            first + last * stored.n_envs + env,
        )

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """`losses` has those of the last step afterwards."""
        losses: dict[str, Tensor] = {}
        for _ in range(gradient_steps):
            drawn = self.sample(batch_size)
            losses |= self.update_critics(drawn, self.alpha())
            if self._n_updates % self.rule.policy_delay == 0:
                losses |= self.update_actor(drawn.batch.states, self.alpha())
            self._n_updates += 1
        self.losses = {name: float(value) for name, value in losses.items()}

    def train_critics(self, batch_size: int) -> None:
        """One step of the critics alone."""
        losses = self.update_critics(self.sample(batch_size), self.alpha())
        self.losses = {name: float(value) for name, value in losses.items()}

    def alpha(self) -> Tensor:
        """The entropy's weight."""
        return self.ent_coef_tensor if self.log_ent_coef is None else self.log_ent_coef.detach().exp().squeeze()

    def update_critics(self, drawn: Drawn, alpha: Tensor) -> dict[str, Tensor]:
        """One step of the critics on r + gamma (Q'(s', w') - alpha log pi(w' | s')), w' ~ pi; then of the targets.

        With r and s' of several decisions the entropy of those between is left out, and that they were taken by an
        older actor is not corrected.
        """
        batch = drawn.batch
        with torch.no_grad():
            w, log_density = squash(self.gaussian(batch.next_states), self._normal(len(batch.states)))
            value = self._backup(self.critic_target)(batch.next_states, w)
            target = self._target(batch, value, log_density, alpha)
        loss = critic_loss(stacked(self.critic.q_networks), batch, target)
        descend(self.critic.optimizer, loss)
        polyak_update(self.critic_target, self.critic, self.tau)
        return {"critic_loss": loss.detach(), "q_value": target.mean()}

    def _backup(self, critic: ContinuousCritic) -> Values:
        return backed_up(critic.q_networks, self.rule.backup, self.rule.backup_critics, self.generator)

    def _target(self, batch: Batch, value: Tensor, log_density: Tensor, alpha: Tensor) -> Tensor:
        """(B,) for the value (B,) of the next state's noise and its log density (B,)."""
        if self.rule.backup_entropy:
            value = value - alpha * log_density
        return batch.rewards + (1.0 - batch.dones) * self.gamma * value

    def update_actor(self, observations: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        """One step of the actor on alpha log pi(w | s) - Q(s, w), and of alpha where it is learned."""
        self.critic.requires_grad_(False)
        batch = Batch(observations, *[observations] * 4)
        loss, log_density = actor_loss(
            self.gaussian,
            stacked(self.critic.q_networks),
            batch,
            self._normal(len(observations)),
            alpha,
            mean=self.rule.backup != "min",
        )
        descend(self.actor.optimizer, loss)
        self.critic.requires_grad_(True)
        if self.ent_coef_optimizer is not None and self.log_ent_coef is not None:
            descend(self.ent_coef_optimizer, temperature_loss(self.log_ent_coef, log_density, self.target_entropy))
        return {"actor_loss": loss.detach(), "ent_coef": alpha, "entropy": -log_density.mean()}

    def _normal(self, count: int) -> Tensor:
        return torch.randn(count, self.action_space.shape[0], generator=self.generator, device=self.device)

    def _learned(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What has a state dict that training changes."""
        parts: dict[str, nn.Module | torch.optim.Optimizer] = {
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
            "buffer": {name: torch.from_numpy(getattr(buffer, name)[:filled]) for name in BUFFER},
            "buffer_at": [buffer.pos, buffer.full],
            "counters": [self.num_timesteps, self._n_updates],
            "losses": self.losses,
            "generator": self.generator.get_state(),
            "rows": self.rows.bit_generator.state,
        }

    def learned(self) -> dict[str, Any]:
        """Weights, the states of their optimisers, the entropy's weight."""
        weight = None if self.log_ent_coef is None else self.log_ent_coef.detach()
        return {**{name: part.state_dict() for name, part in self._learned().items()}, "log_ent_coef": weight}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._learned().items():
            if isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
        if self.log_ent_coef is not None:
            self.log_ent_coef.data.copy_(state["log_ent_coef"])
        for name, values in state["buffer"].items():
            getattr(self.replay_buffer, name)[: len(values)] = values
        self.replay_buffer.pos, self.replay_buffer.full = state["buffer_at"]
        self.num_timesteps, self._n_updates = state["counters"]
        self.losses = state["losses"]
        restore_random(self.generator, state["generator"], self.num_timesteps)
        self.rows.bit_generator.state = state["rows"]


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """target += tau (source - target)."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
