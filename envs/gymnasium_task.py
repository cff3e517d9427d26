"""MuJoCo's tasks of Gymnasium (Hopper-v5 and the like) as tasks that demonstrations, clones and learners are of."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import gymnasium

from envs.chunked_env import ChunkedEnv
from runtime.errors import ConfigError, DataError, TaskError

GYM_TYPE = 2
"""`type` of robomimic's env_args for an environment of gym."""

KEY = "flat"
"""The only observation, by the name that robomimic gives it."""

_MODULE = "gymnasium.envs.mujoco."
_WITHOUT_THRESHOLD = {"Walker2d-v5": 4000.0, "Humanoid-v5": 5000.0, "HumanoidStandup-v5": 100_000.0}
"""Return that counts as solved where gymnasium names none."""


@functools.cache
def gymnasium_names() -> tuple[str, ...]:
    """Ids of gymnasium's own MuJoCo tasks in their present version."""
    found = [
        name
        for name, spec in gymnasium.registry.items()
        if name.endswith("-v5") and str(spec.entry_point).startswith(_MODULE)
    ]
    return tuple(sorted(found))


@functools.cache
def _sizes(name: str) -> tuple[int, int]:
    """Numbers of an observation and of an action."""
    env = gymnasium.make(name)
    try:
        return gymnasium.spaces.flatdim(env.observation_space), gymnasium.spaces.flatdim(env.action_space)
    finally:
        env.close()


@dataclass(frozen=True)
class GymnasiumTask:
    """One of gymnasium's MuJoCo tasks, with the JSON text by which data files name it.

    An episode counts as solved once its return reaches `success_return`. A value that can be compared, hashed and sent
    to worker processes.
    """

    name: str
    env_args: str

    policy_keys = (KEY,)

    @classmethod
    def standard(cls, name: str, success_return: float | None = None) -> GymnasiumTask:
        """By default the return that gymnasium's registry names. Raises `TaskError` for an unknown name."""
        if name not in gymnasium_names():
            raise TaskError(f"task {name!r}: expected one of {', '.join(gymnasium_names())}")
        if success_return is None:
            success_return = gymnasium.spec(name).reward_threshold
            success_return = _WITHOUT_THRESHOLD.get(name, math.inf) if success_return is None else success_return
        if not math.isfinite(success_return):
            raise ConfigError(f"success_return {success_return}: expected a number, the return of a solved {name}")
        arguments = {
            "env_name": name,
            "env_version": gymnasium.__version__,
            "type": GYM_TYPE,
            "env_kwargs": {},
            "success_return": float(success_return),
        }
        return cls(name, json.dumps(arguments))

    @classmethod
    def from_env_args(cls, text: str, source: str) -> GymnasiumTask:
        """The task of a data file or checkpoint called `source`; nothing that a file names is imported.

        Raises `DataError` for arguments of another environment.
        """
        arguments = json.loads(text)
        name, kwargs = arguments.get("env_name"), arguments.get("env_kwargs", {})
        if name not in gymnasium_names():
            raise DataError(f"{source}: env_args.env_name is {name!r}, expected one of {', '.join(gymnasium_names())}")
        if kwargs != {}:
            raise DataError(f"{source}: env_args.env_kwargs is {kwargs!r}, expected {{}}: gymnasium's own settings")
        solved = arguments.get("success_return")
        if not isinstance(solved, (int, float)) or isinstance(solved, bool) or not math.isfinite(solved):
            raise DataError(f"{source}: env_args.success_return is {solved!r}, expected a number")
        return cls(name, text)

    @property
    def success_return(self) -> float:
        return float(json.loads(self.env_args)["success_return"])

    @property
    def observation_dims(self) -> dict[str, int]:
        """Width of each observation by its key."""
        return {KEY: _sizes(self.name)[0]}

    @property
    def action_dim(self) -> int:
        return _sizes(self.name)[1]

    def observation_dim(self, keys: tuple[str, ...] = (KEY,)) -> int:
        return sum(self.observation_dims[key] for key in keys)

    @property
    def horizon(self) -> int:
        """Control steps of an episode, as gymnasium has it."""
        steps = gymnasium.spec(self.name).max_episode_steps
        assert steps is not None  # all of gymnasium's own MuJoCo tasks have it
        return steps

    def make_env(
        self,
        *,
        horizon: int | None = None,
        chunk: int = 1,
        keys: tuple[str, ...] = (KEY,),
        until_success: bool = False,
        render_mode: str | None = None,
        **picture: Any,
    ) -> ChunkedEnv:
        """Its environment. Raises `ConfigError` for observations that it has not."""
        if tuple(keys) != (KEY,):
            raise ConfigError(f"keys {keys!r}: expected {KEY}, the only observation of {self.name}")
        # Gymnasium ends episodes itself after the registered number of steps, which stays an end of time.
        env = gymnasium.make(self.name, max_episode_steps=horizon, render_mode=render_mode, **picture)
        return ChunkedEnv(
            env, chunk=chunk, until_success=until_success, solved=_Reached(self.success_return), horizon=horizon
        )

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _Reached:
    """Whether a return was reached; a value, so that environments can be sent to processes."""

    success_return: float

    def __call__(self, total: float, info: Any) -> bool:
        return total >= self.success_return
