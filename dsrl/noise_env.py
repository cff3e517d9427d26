"""The environment that reinforcement learning sees: its actions are the frozen policy's noise."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from dsrl.rollout import ChooseNoise
from dsrl.saved_actor import load_saved_actor
from dsrl.steerable import SteerablePolicy
from envs.pool import WorkerError
from runtime.errors import DataError
from runtime.records import read_mapping
from runtime.seeds import rng


def observation_space(policy: SteerablePolicy) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, (policy.feature_dim,), np.float32)


def noise_space(policy: SteerablePolicy, action_magnitude: float) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-action_magnitude, action_magnitude, (policy.noise_dim,), np.float32)


class DSRLEnvWrapper(gymnasium.Wrapper):
    """One environment of chunks: w (W,) is denoised to a chunk of actions, which is executed open loop.

    Observations are the policy's features. The reward is the environment's less `reward_offset` for each control step
    executed: with 1, of a Robomimic task, minus the number of those after which it was not solved.
    """

    def __init__(
        self, env: gymnasium.Env, policy: SteerablePolicy, action_magnitude: float = 1.0, reward_offset: float = 1.0
    ) -> None:
        super().__init__(env)
        self.policy, self.reward_offset = policy, reward_offset
        self.observation_space = observation_space(policy)
        self.action_space = noise_space(policy, action_magnitude)
        self._seen: Tensor | None = None

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return self._look(observation), info

    def step(self, w: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._seen is None:
            raise gymnasium.error.ResetNeeded("no episode is under way, call reset() first")
        if np.shape(w) != self.action_space.shape:
            raise ValueError(f"noise of shape {np.shape(w)}, expected {self.action_space.shape}")
        noise = torch.as_tensor(w, dtype=torch.float32, device=self.policy.device)[None]
        chunk = self.policy.denoise(self._seen, noise)
        observation, gained, terminated, truncated, info = self.env.step(self.policy.to_actions(chunk)[0])
        info["chunk"] = chunk[0].cpu().numpy()
        reward = gained - self.reward_offset * info["executed"]
        return self._look(observation), reward, terminated, truncated, info

    def _look(self, observation: np.ndarray) -> np.ndarray:
        self._seen = self.policy.features(observation[None])
        return self._seen[0].cpu().numpy()


class NoiseVecEnv(VecEnvWrapper):
    """`DSRLEnvWrapper` for several environments, which are denoised as one batch.

    `info["chunk"]` (C,) is the chunk that was executed; `env_steps` counts control steps of all.
    """

    action_space: gymnasium.spaces.Box

    def __init__(
        self, venv: VecEnv, policy: SteerablePolicy, action_magnitude: float = 1.0, reward_offset: float = 1.0
    ) -> None:
        super().__init__(venv, observation_space(policy), noise_space(policy, action_magnitude))
        self.policy, self.reward_offset, self.env_steps = policy, reward_offset, 0
        self._seen: Tensor | None = None

    def reset(self) -> np.ndarray:
        with _killed_worker_named():
            return self._look(self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Raises `ResetNeeded` before `reset`, `ValueError` for noise of another shape than (num_envs, W)."""
        if self._seen is None:
            raise gymnasium.error.ResetNeeded("no episodes are under way, call reset() first")
        expected = (self.num_envs, *self.action_space.shape)
        if np.shape(actions) != expected:
            raise ValueError(f"noise of shape {np.shape(actions)}, expected {expected}")
        self._chunks = self.policy.denoise(
            self._seen, torch.as_tensor(actions, dtype=torch.float32, device=self.policy.device)
        )
        with _killed_worker_named():
            self.venv.step_async(self.policy.to_actions(self._chunks))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        with _killed_worker_named():
            observations, gained, dones, infos = self.venv.step_wait()
        executed = np.array([info["executed"] for info in infos])
        self.env_steps += int(executed.sum())
        chunks = self._chunks.cpu().numpy()
        for info, chunk in zip(infos, chunks, strict=True):
            info["chunk"] = chunk
            if "terminal_observation" in info:
                info["terminal_observation"] = self.policy.features(info["terminal_observation"][None])[0].cpu().numpy()
        rewards = (gained - self.reward_offset * executed).astype(np.float32)
        return self._look(observations), rewards, dones, infos

    def snapshot(self) -> dict[str, Any]:
        """All that the episodes in progress and those after them depend on, for `restore`."""
        return {"environments": self.venv.env_method("snapshot"), "seen": self._seen, "env_steps": self.env_steps}

    def restore(self, snapshot: dict[str, Any]) -> None:
        for index, environment in enumerate(snapshot["environments"]):
            self.venv.env_method("restore", environment, indices=index)
        self._seen, self.env_steps = snapshot["seen"].to(self.policy.device, torch.float32), snapshot["env_steps"]

    def _look(self, observations: VecEnvObs) -> np.ndarray:
        assert isinstance(observations, np.ndarray)  # its space is a Box
        self._seen = self.policy.features(observations)
        return self._seen.cpu().numpy()


@contextlib.contextmanager
def _killed_worker_named() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise WorkerError("a process with environments was killed, perhaps for want of memory") from error


class _Make:
    """Makes one environment in whichever process calls it."""

    def __init__(self, task: Any, options: dict[str, Any]) -> None:
        self.task, self.options = task, options

    def __call__(self) -> gymnasium.Env:
        import envs

        if multiprocessing.parent_process() is not None:
            # A scheduler sends SIGTERM to all processes: the main one needs its workers to save where they are.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        environment: gymnasium.Env = envs.make(self.task, **self.options)
        return environment


def open_noise_environments(
    policy: SteerablePolicy,
    num_envs: int,
    *,
    workers: bool,
    horizon: int,
    until_success: bool,
    action_magnitude: float,
    reward_offset: float = 1.0,
    seed: int,
) -> NoiseVecEnv:
    """`workers`: a process for each environment; else all in this one."""
    options = {"horizon": horizon, "chunk": policy.chunk, "keys": policy.keys, "until_success": until_success}
    makers: list[Callable[[], gymnasium.Env]] = [_Make(policy.task, options) for _ in range(num_envs)]
    venv = SubprocVecEnv(makers, start_method="spawn") if workers else DummyVecEnv(makers)
    venv.seed(seed)
    return NoiseVecEnv(venv, policy, action_magnitude, reward_offset)


def load_actor(path: Path, policy: SteerablePolicy, *, deterministic: bool = False) -> ChooseNoise:
    """The noise that a saved SAC chooses. Raises `DataError` unless it is one that steers this policy."""
    if not Path(path).is_file():
        raise DataError(f"{path}: no such SAC model; train one with `python -m dsrl.train_dsrl`")
    model = load_saved_actor(path, policy.device)
    found = (model.observation_space.shape, model.action_space.shape)
    expected = ((policy.feature_dim,), (policy.noise_dim,))
    if found != expected:
        raise DataError(f"{path}: steers observations and noise of {found}, the policy {policy.source} has {expected}")
    # Policies of Can and Square see as many numbers: which one is steered stands beside the model.
    asked = Path(path).parent / "config.json"
    if asked.is_file() and read_mapping(asked).get("policy") != policy.identity:
        raise DataError(f"{path}: steers another policy than {policy.source}, by the checksum in {asked}")
    return actor_noise(model, deterministic=deterministic)


def actor_noise(model: SAC | SACPolicy, *, deterministic: bool) -> ChooseNoise:
    space = model.action_space
    assert isinstance(space, gymnasium.spaces.Box)  # SAC takes no other
    low, high = (torch.as_tensor(bound, device=model.device) for bound in (space.low, space.high))
    generators: dict[int, np.random.Generator] = {}

    @torch.no_grad()
    def choose(seen: Tensor, seeds: Sequence[int], decision: int) -> Tensor:
        if decision == 0:
            generators.update({seed: rng("actor", seed) for seed in seeds})
        mean, log_std, _ = model.actor.get_action_dist_params(seen)
        if not deterministic:
            draws = [generators[seed].standard_normal(mean.shape[1], dtype=np.float32) for seed in seeds]
            mean = mean + log_std.exp() * torch.from_numpy(np.stack(draws)).to(mean.device)
        return low + (high - low) * (torch.tanh(mean) + 1) / 2

    return choose
