"""The tasks in gymnasium's registry, `CompoSuite/<task>-v0` and `Robomimic/<task>-v0`, and what makes them.

`gymnasium.make` ends episodes itself, by its wrapper `TimeLimit` and the registered `max_episode_steps`, and
`gymnasium.make_vec` hands that number to what it makes: so an environment that comes from there has one limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from envs.making import make
from envs.robomimic.task import HORIZONS, task_names
from envs.task_env import TaskEnv, expect_count
from offline_compositional_rl_datasets.composuite import all_tasks
from runtime.errors import ConfigError

COMPOSUITE_NAMESPACE, ROBOMIMIC_NAMESPACE = "CompoSuite", "Robomimic"
"""Namespaces of the tasks' names."""

COMPOSUITE_HORIZON = 500
"""Control steps per episode; Robomimic's tasks have `envs.robomimic.task.HORIZONS`."""


def register_all() -> None:
    """Register every task that is not registered yet."""
    for namespace, names in (
        (COMPOSUITE_NAMESPACE, [task.name for task in all_tasks()]),
        (ROBOMIMIC_NAMESPACE, task_names()),
    ):
        for name in names:
            if f"{namespace}/{name}-v0" not in gymnasium.registry:
                gymnasium.register(
                    f"{namespace}/{name}-v0",
                    entry_point="envs.registration:make_single",
                    vector_entry_point="envs.registration:make_vector",
                    max_episode_steps=_limit(name),
                    kwargs={"task": name},
                )


def make_single(task: str, *, horizon: int | None = None, chunk: int = 1, **options: Any) -> TaskEnv:
    """What `gymnasium.make` wraps. Raises `ConfigError` for a length of episodes that its limit would contradict.

    `horizon` counts control steps; `max_episode_steps` counts the environment's, which are chunks where `chunk` is
    given.
    """
    _expect_ends(options)
    _expect_within(horizon, _limit(task) * chunk)
    env: TaskEnv = make(task, horizon=_own_horizon(task, horizon, chunk), **_chunked(chunk), **options)
    return env


vars(make_single)["metadata"] = TaskEnv.metadata  # tells gymnasium.make that `human` takes its wrapper


def make_vector(
    task: str,
    num_envs: int,
    *,
    max_episode_steps: int | None = None,
    horizon: int | None = None,
    chunk: int = 1,
    **options: Any,
) -> gymnasium.vector.VectorEnv:
    """What `gymnasium.make_vec` gives; `workers` and `autoreset_mode` are options of `envs.vector.VectorEnv`.

    Raises `ConfigError` as `make_single` does. `max_episode_steps` -1: no limit.
    """
    from envs.vector import VectorEnv

    _expect_ends(options)
    limits = [_own_horizon(task, horizon, chunk)]
    if max_episode_steps is not None and max_episode_steps != -1:
        expect_count("max_episode_steps", max_episode_steps)
        _expect_within(horizon, max_episode_steps * chunk)
        limits.append(max_episode_steps * chunk)
    least = min((limit for limit in limits if limit is not None), default=None)
    return VectorEnv(task, num_envs, horizon=least, **_chunked(chunk), **options)


def _limit(task: str) -> int:
    """Control steps of an episode."""
    return HORIZONS.get(task, COMPOSUITE_HORIZON)


def _own_horizon(task: str, horizon: int | None, chunk: int) -> int | None:
    """Control steps after which the environment itself ends an episode: by default none, gymnasium counts.

    Of chunks it does not know how many control steps they are.
    """
    return _limit(task) if horizon is None and chunk != 1 else horizon


def _chunked(chunk: int) -> dict[str, Any]:
    return {} if chunk == 1 else {"chunk": chunk}


def _expect_ends(options: Mapping[str, Any]) -> None:
    if options.get("ignore_done"):
        raise ConfigError("ignore_done True: give max_episode_steps=-1, since gymnasium ends episodes itself")


def _expect_within(horizon: int | None, limit: int) -> None:
    if horizon is None:
        return
    expect_count("horizon", horizon)
    if horizon > limit:
        raise ConfigError(
            f"horizon {horizon}: gymnasium ends episodes after {limit} control steps; give max_episode_steps instead"
        )
