"""Any gymnasium environment with vectors of numbers, stepped in chunks of actions, in episodes that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from envs.task_env import DRAWN_SEEDS, expect_count
from runtime.errors import ConfigError, DataError

Solved = Callable[[float, Mapping[str, Any]], bool]
"""Whether an episode counts as solved, from its return so far and the last step's `info`."""


class ChunkedEnv(gymnasium.Env):
    """One environment whose action is `chunk` actions of another, executed open loop.

    Observation (D,) float32; action (chunk * A,) in [-1, 1], each number of which is stretched to the bounds of the
    other environment's. The reward is the sum of the rewards of the executed steps. `info["success"]`: solved after any
    of them, `info["held"]`: after the last, `info["executed"]`: how many were executed. Episodes end where the other's
    do, after `horizon` steps (truncated), and with `until_success` at the first success (terminated).

    An episode depends on its seed alone. `snapshot` and `restore` carry the seed and the actions since, which are run
    again: any environment that a seed determines can be kept so, whatever it holds.
    """

    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Box

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        chunk: int = 1,
        horizon: int | None = None,
        until_success: bool = False,
        solved: Solved = lambda total, info: False,
    ) -> None:
        """Raises `ConfigError` for an environment whose observations or actions are not vectors of numbers."""
        expect_count("chunk", chunk)
        if horizon is not None:
            expect_count("horizon", horizon)
        self.env, self.chunk, self.horizon, self.until_success, self.solved = env, chunk, horizon, until_success, solved
        observations = self._expect_vector("observations", env.observation_space)
        actions = self._expect_vector("actions", env.action_space)
        low, high = (np.asarray(bound, np.float64) for bound in (actions.low, actions.high))
        if not np.isfinite([low, high]).all():
            raise ConfigError(f"{env}: actions of {actions}, expected finite bounds")
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, observations.shape, np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (chunk * len(low),), np.float32)
        self.metadata, self.render_mode = env.metadata, env.render_mode
        self.steps, self.total = 0, 0.0
        self._ended = True
        self._actions: list[np.ndarray] = []

    def _expect_vector(self, what: str, space: gymnasium.Space[Any]) -> gymnasium.spaces.Box:
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ConfigError(f"{self.env}: {what} of {space}, expected a Box of one dimension")
        return space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; without a seed, with one that is drawn."""
        super().reset(seed=seed)
        self._np_random_seed = int(self.np_random.integers(DRAWN_SEEDS)) if seed is None else seed
        return self._begin(options), {"success": False, "executed": 0}

    def _begin(self, options: dict[str, Any] | None = None) -> np.ndarray:
        observation, _ = self.env.reset(seed=self._np_random_seed, options=options)
        self.steps, self.total, self._ended, self._actions = 0, 0.0, False, []
        return np.asarray(observation, np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise gymnasium.error.ResetNeeded(f"{self}: the episode has ended, call reset() before step()")
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"{self}: action of shape {np.shape(action)}, expected {self.action_space.shape}")
        action = np.asarray(action, np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"{self}: action {action} is not finite")
        self._actions.append(action.copy())
        before, reward, success, held = self.steps, 0.0, False, False
        terminated = truncated = False
        for command in np.clip(action, -1, 1).reshape(self.chunk, -1):
            stretched = (self._middle + self._half * command).astype(self.env.action_space.dtype)
            observation, gained, terminated, truncated, info = self.env.step(stretched)
            self.steps, self.total, reward = self.steps + 1, self.total + float(gained), reward + float(gained)
            held = bool(self.solved(self.total, info))
            success |= held
            terminated = bool(terminated) or (held and self.until_success)
            truncated = not terminated and (bool(truncated) or self.steps == self.horizon)
            if terminated or truncated:
                break
        self._ended = terminated or truncated
        told = {"success": success, "is_success": success, "held": held, "executed": self.steps - before}
        return np.asarray(observation, np.float32), reward, terminated, truncated, told

    def snapshot(self) -> dict[str, Any]:
        """What this episode and those after it depend on, as plain values and arrays, for `restore`."""
        actions = np.stack(self._actions) if self._actions else np.empty((0, *self.action_space.shape))
        return {
            "seed": self.np_random_seed,
            "actions": actions,
            "ended": self._ended,
            "random": self.np_random.bit_generator.state,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Run a snapshot's episode again up to where it was. Raises `DataError` for what is no snapshot of this one."""
        try:
            actions = np.asarray(snapshot["actions"], np.float64)
            self.np_random.bit_generator.state = snapshot["random"]
            self._np_random_seed = snapshot["seed"]
            self._begin()
            for action in actions:
                self.step(action)
            if self._ended != snapshot["ended"]:
                raise ValueError(f"ended {self._ended}, expected {snapshot['ended']}")
        except (KeyError, TypeError, ValueError, gymnasium.error.ResetNeeded) as error:
            self._ended = True
            raise DataError(f"{self}: not a snapshot of this environment ({error!r})") from error

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def __str__(self) -> str:
        return f"chunks of {self.env}"
