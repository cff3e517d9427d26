"""Offline learning over many tasks at once: one agent, observations with task ids.

The learners are those of `corl.td3_bc` and `corl.iql`, and behaviour cloning, on an MLP or on a factored network.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corl.evaluate import finite
from corl.factored import FACTORED, FactoredActor, FactoredCritic, FactoredValue
from corl.iql import IQL, IQLConfig
from corl.learner import Learner, Networks
from corl.networks import Actor, GaussianActor, TwinCritic, Value
from corl.replay import STATE_STD_OFFSET, Batch, mean_and_std
from corl.td3_bc import TD3BC, TD3BCConfig
from offline_compositional_rl_datasets.hdf5 import EpisodeEnds
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions, canonical_quaternions
from runtime.device import autocast_dtype
from runtime.errors import ConfigError, expect_range
from runtime.seeds import derive_seed

# Published name -> learner, network.
ALGORITHMS = {
    "bc": ("bc", "mlp"),
    "cp_bc": ("bc", "cp"),
    "iql": ("iql", "mlp"),
    "cp_iql": ("iql", "cp"),
    "td3_bc": ("td3_bc", "mlp"),
    "transformer_td3_bc": ("td3_bc", "transformer"),
    "compositional_td3_bc": ("td3_bc", "compositional"),
}


@dataclass(frozen=True)
class BCConfig:
    """Behaviour cloning: squared error of a tanh policy, Adam."""

    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        expect_range(self, "learning_rate", above=True)
        expect_range(self, "hidden", least=1)


RUNTIME_SETTINGS = ("log_freq", "checkpoint_seconds")
"""Of MultitaskConfig: these change no result."""


@dataclass(frozen=True)
class MultitaskConfig:
    """Defaults are those of the published transformer baseline; batches are uniform over all rows.

    `eval_freq` 0: no evaluation before the end. Losses are written every `log_freq` steps, where to continue every
    `checkpoint_seconds`. `normalise`, `hide_velocities`, `canonical_quaternions`: as for a
    single task (`corl.replay`); the ids are never normalised. `episode_ends`: see `read_expert`.
    """

    algorithm: str = "transformer_td3_bc"
    max_timesteps: int = 50_000
    batch_size: int = 1792
    eval_freq: int = 5_000
    log_freq: int = 5_000
    n_eval_episodes: int = 10
    horizon: int = 500
    normalise: bool = False
    hide_velocities: bool = False
    canonical_quaternions: bool = True
    episode_ends: EpisodeEnds = "self"
    precision: str = "float32"
    checkpoint_seconds: float = 25.0
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)
    iql: IQLConfig = field(default_factory=lambda: IQLConfig(gaussian=True))
    bc: BCConfig = field(default_factory=BCConfig)

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm {self.algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
        expect_range(self, "max_timesteps", "batch_size", "log_freq", "n_eval_episodes", "horizon", least=1)
        expect_range(self, "eval_freq", "checkpoint_seconds")
        if self.episode_ends not in ("drop", "self", "reference"):
            raise ConfigError(f"episode_ends {self.episode_ends!r}: expected drop, self or reference")
        if self.hide_velocities and not self.normalise:
            raise ConfigError("hide_velocities: expected normalise too, which is what hides them")


class BC(Learner):
    """Behaviour cloning."""

    def __init__(self, actor: nn.Module, config: BCConfig, *, seed: int, device: torch.device, dtype: Any) -> None:
        super().__init__({"actor": actor}, ("actor",), config.learning_rate, seed=seed, device=device, dtype=dtype)

    def step(self, networks: Networks, batch: Batch, noise: Tensor | None, number: int) -> dict[str, Tensor]:
        def cloning(actor: nn.Module, batch: Batch) -> Tensor:
            return F.mse_loss(actor(batch.states), batch.actions)

        loss = networks.call(cloning, ("actor",), batch, learn="actor")
        networks.minimise("actor", loss)
        return {"bc_loss": loss.detach()}


class MultitaskTD3BC(TD3BC):
    """TD3+BC on given networks."""

    def __init__(
        self, actor: nn.Module, critic: nn.Module, config: TD3BCConfig, *, seed: int, device: torch.device, dtype: Any
    ) -> None:
        modules = {"actor": actor, "critic": critic}
        modules |= {f"{name}_target": copy.deepcopy(net).requires_grad_(False) for name, net in modules.items()}
        Learner.__init__(
            self, modules, ("actor", "critic"), config.learning_rate, seed=seed, device=device, dtype=dtype
        )
        self.config = config


class MultitaskIQL(IQL):
    """IQL on given networks."""

    def __init__(
        self,
        actor: nn.Module,
        critic: nn.Module,
        value: nn.Module,
        config: IQLConfig,
        *,
        seed: int,
        device: torch.device,
        dtype: Any,
        max_steps: int,
    ) -> None:
        modules = {
            "actor": actor,
            "critic": critic,
            "critic_target": copy.deepcopy(critic).requires_grad_(False),
            "value": value,
        }
        trained = ("actor", "critic", "value")
        Learner.__init__(self, modules, trained, config.learning_rate, seed=seed, device=device, dtype=dtype)
        self.config, self.max_steps = config, max_steps


def make_actor(config: MultitaskConfig, layout: FactoredLayout) -> nn.Module:
    """An untrained actor of the configured algorithm."""
    learner, network = ALGORITHMS[config.algorithm]
    gaussian = learner == "iql" and config.iql.gaussian
    if network in FACTORED:
        return FactoredActor(network, layout, gaussian=gaussian)
    kind = GaussianActor if gaussian else Actor
    return kind(layout.observation_dim, layout.action_dim, getattr(config, learner).hidden)


def make_learner(config: MultitaskConfig, layout: FactoredLayout, *, seed: int, device: torch.device) -> Learner:
    """The configured algorithm, untrained; the same seed gives the same weights."""
    learner, network = ALGORITHMS[config.algorithm]
    settings: dict[str, Any] = {"seed": seed, "device": device, "dtype": autocast_dtype(device, config.precision)}
    hidden, sizes = getattr(config, learner).hidden, (layout.observation_dim, layout.action_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("weights", seed))
        actor = make_actor(config, layout).to(device)
        if learner == "bc":
            return BC(actor, config.bc, **settings)
        critic = FactoredCritic(network, layout) if network in FACTORED else TwinCritic(*sizes, hidden)
        if learner == "td3_bc":
            return MultitaskTD3BC(actor, critic.to(device), config.td3_bc, **settings)
        value = FactoredValue(network, layout) if network in FACTORED else Value(sizes[0], hidden)
        return MultitaskIQL(
            actor, critic.to(device), value.to(device), config.iql, **settings, max_steps=config.max_timesteps
        )


@dataclass(frozen=True)
class Normalisation:
    """Of states without ids: mean, std (77,); `std` infinite hides an entry. `canonical`: quaternions of one sign."""

    mean: np.ndarray
    std: np.ndarray
    canonical: bool

    @classmethod
    def of(cls, states: np.ndarray, config: MultitaskConfig, layout: FactoredLayout) -> Normalisation:
        """Over states (N, 77), which are canonical already where the configuration wants it."""
        if not config.normalise:
            return cls(
                np.zeros(layout.state_dim, np.float32),
                np.ones(layout.state_dim, np.float32),
                config.canonical_quaternions,
            )
        mean, std = mean_and_std(states, layout, hide_velocities=config.hide_velocities)
        std = (std + STATE_STD_OFFSET).astype(np.float32)
        return cls(mean.astype(np.float32), std, config.canonical_quaternions)

    def observation(self, states: np.ndarray, task: Task, layout: FactoredLayout) -> np.ndarray:
        """Raw states (B, 77) to the agent's observations (B, 93)."""
        states = np.asarray(states, np.float32)
        if self.canonical:
            states = canonical_quaternions(states, layout)
        return layout.join_ids((states - self.mean) / self.std, task.one_hot)


class TaskData:
    """Transitions of many tasks on the device: rows without ids (a sixth less memory), the ids joined to each batch."""

    def __init__(
        self, parts: Sequence[Transitions], config: MultitaskConfig, layout: FactoredLayout, device: torch.device
    ) -> None:
        matrix = np.concatenate([part.to_matrix(layout, timeouts_as_terminals=False) for part in parts])
        both = (layout.state, layout.next_state)
        if config.canonical_quaternions:
            for part in both:
                matrix[:, part] = canonical_quaternions(matrix[:, part], layout)
        self.normalisation = Normalisation.of(matrix[:, layout.state], config, layout)
        if config.normalise:
            for part in both:
                matrix[:, part] = (matrix[:, part] - self.normalisation.mean) / self.normalisation.std
        self._matrix = torch.from_numpy(matrix).to(device)
        numbers = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
        self._task = torch.from_numpy(numbers).to(device)
        self._ids = torch.from_numpy(np.stack([part.task.one_hot for part in parts])).to(device)
        self._layout = layout

    def __len__(self) -> int:
        return len(self._matrix)

    def batch(self, indices: Tensor) -> Batch:
        """indices (B,) to a batch of observations with ids."""
        layout, rows, ids = self._layout, self._matrix[indices], self._ids[self._task[indices]]
        return Batch(
            self._join(rows[:, layout.state], ids),
            rows[:, layout.action],
            rows[:, layout.reward],
            self._join(rows[:, layout.next_state], ids),
            rows[:, layout.terminal],
        )

    def _join(self, states: Tensor, ids: Tensor) -> Tensor:
        cut = self._layout.ids_slice.start
        return torch.cat([states[:, :cut], ids, states[:, cut:]], dim=1)


class TaskPolicy:
    """A multitask actor at one task: raw states (B, 77) to actions (B, 8)."""

    def __init__(
        self, actor: nn.Module, normalisation: Normalisation, task: Task, layout: FactoredLayout, device: Any = "cpu"
    ) -> None:
        self.actor, self.normalisation, self.task, self.layout = actor, normalisation, task, layout
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, states: np.ndarray) -> np.ndarray:
        observations = self.normalisation.observation(states, self.task, self.layout)
        actions = self.actor(torch.from_numpy(observations).to(self.device)).cpu().numpy()
        return finite(actions, f"the multitask agent in {self.task}")
