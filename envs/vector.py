"""Many environments of one task with gymnasium's interface, `gymnasium.vector.VectorEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.making import AnyTask
from envs.pool import UNSEEDED, EnvPool
from envs.task_env import TaskEnv, expect_count
from runtime.errors import ConfigError

_MASK = "reset_mask"


class VectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments of a task over `workers` processes (0: in this process); `gymnasium.make_vec` gives it.

    Observations (N, S) float32, actions (N, A), rewards (N,) float64. An ended episode is followed by a new one at the
    next step (`AutoresetMode.NEXT_STEP`), in the same step (`SAME_STEP`, with `final_obs` and `final_info`), or not at
    all (`DISABLED`: it stays at its last observation, with reward 0, until it is reset). Seeds and episodes are those
    of gymnasium's `SyncVectorEnv` of the same environments. Options are those of `CompoSuiteEnv` or `RobomimicEnv`.

    What learners and evaluation here use is `envs.pool.EnvPool`: one episode per seed, and batches that may be smaller.
    """

    def __init__(
        self,
        task: AnyTask,
        num_envs: int = 1,
        *,
        workers: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        expect_count("num_envs", num_envs)
        modes = [mode.value for mode in AutoresetMode]
        if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in modes:
            raise ConfigError(f"autoreset_mode {autoreset_mode!r}: expected one of {', '.join(modes)}")
        self.num_envs, self.autoreset_mode = num_envs, AutoresetMode(autoreset_mode)
        self.metadata = {**TaskEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.pool = EnvPool(task, num_envs, workers=workers, render_mode=render_mode, **options)
        self.single_observation_space = self.pool.single_observation_space
        self.single_action_space = self.pool.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start episodes: of all environments, or of those in `options["reset_mask"]`, (N,) bool.

        An int seeds environment i with `seed + i`; None lets each draw its own. Raises `ConfigError` for other
        options, `ValueError` for seeds or a mask of another size.
        """
        mask = self._mask(options)
        seeds: list[int | None]
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds, expected {self.num_envs}, one per environment")
        orders = [UNSEEDED if each is None else each for each in seeds]
        if mask.all():
            observations = self.pool.reset(orders)
        else:
            observations = self.pool.restart(
                [each if chosen else None for each, chosen in zip(orders, mask, strict=True)]
            )
        self._ended[mask] = False
        return observations, self._together(self.pool.infos, mask)

    def _mask(self, options: dict[str, Any] | None) -> np.ndarray:
        unknown = sorted(set(options or {}) - {_MASK})
        if unknown:
            raise ConfigError(f"reset option {', '.join(unknown)}: expected none but {_MASK}")
        mask = np.asarray((options or {}).get(_MASK, np.ones(self.num_envs, dtype=bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"{_MASK} of shape {mask.shape} and type {mask.dtype}, {int(mask.sum())} chosen: "
                f"expected ({self.num_envs},) bool, one or more chosen"
            )
        return mask

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of all. Raises `ValueError` for actions of another shape than (N, A) or that are not finite."""
        again = self._ended & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        orders = [UNSEEDED if chosen else None for chosen in again]
        observations, rewards, terminated, truncated, _ = self.pool.step(actions, orders)
        self._ended = terminated | truncated
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            finals = [
                {"final_obs": observation, "final_info": info}
                for observation, info in zip(observations, self.pool.infos, strict=True)
            ]
            infos = self._together(finals, self._ended)
            observations = self.pool.restart([UNSEEDED if ended else None for ended in self._ended])
            self._ended = np.zeros(self.num_envs, dtype=bool)
        everyone = np.ones(self.num_envs, dtype=bool)
        return observations, rewards, terminated, truncated, self._together(self.pool.infos, everyone, infos)

    def _together(
        self, parts: Sequence[dict[str, Any]], chosen: np.ndarray, infos: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        infos = {} if infos is None else infos
        for i in np.flatnonzero(chosen).tolist():
            infos = self._add_info(infos, parts[i], i)
        return infos

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]  # as in gymnasium's SyncVectorEnv
        """(N,) seeds of the present episodes: `reset(seed=...)` with them gives the same."""
        return tuple(self.pool.seeds())

    def render(self) -> tuple[np.ndarray, ...]:
        """A picture of each, (height, width, 3) uint8."""
        return tuple(self.pool.render())

    def close_extras(self, **kwargs: Any) -> None:
        if "pool" in self.__dict__:
            self.pool.close()
