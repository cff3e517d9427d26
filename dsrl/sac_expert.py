"""Demonstrations of gymnasium's tasks: what a policy that `scripts.train_sac_gymnasium` trained does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv

from corl.networks import SquashedActor
from dsrl.demos import Demonstration
from envs.chunked_env import ChunkedEnv
from envs.gymnasium_task import KEY, GymnasiumTask
from runtime.checkpoint import build_within, entry, load_checkpoint, load_weights
from runtime.errors import DataError
from runtime.seeds import derive_seed, rng

Expert = Callable[[np.ndarray], np.ndarray]
"""Observations (D,) to mean actions (A,) float32 in [-1, 1]."""

_HIDDEN = re.compile(r"trunk\.(\d+)\.weight")


def read_expert(path: Path, task: GymnasiumTask) -> Expert:
    """The actor of a `sac_policy_model.pt`. Raises `DataError` where the file is another's or of another task."""
    contents = load_checkpoint(Path(path))
    weights = entry(entry(contents, "agent", dict, path), "actor", dict, path)
    layers = sorted(int(found.group(1)) for name in weights if (found := _HIDDEN.fullmatch(str(name))))
    hidden = tuple(len(weights[f"trunk.{layer}.weight"]) for layer in layers)
    if not hidden:
        raise DataError(f"{path}: no actor of scripts.train_sac_gymnasium (no trunk.0.weight)")
    seen = weights[f"trunk.{layers[0]}.weight"].shape[-1]
    if seen != task.observation_dim():
        raise DataError(f"{path}: sees {seen} numbers, expected the {task.observation_dim()} of {task}")
    actor = build_within(path, lambda: SquashedActor(seen, task.action_dim, hidden))
    load_weights(actor, weights, path, "actor")

    @torch.no_grad()
    def act(observation: np.ndarray) -> np.ndarray:
        action: torch.Tensor = actor(torch.as_tensor(observation, dtype=torch.float32)[None])[0]
        return action.numpy()

    return act


def record(
    env: ChunkedEnv, task: GymnasiumTask, expert: Expert, *, noise: float, seed: int, number: int
) -> Demonstration | None:
    """Run `number`'s episode; None where its return stays below the task's. Start and noise depend on number and seed.

    What is executed has normal noise; the recorded action is the expert's own.
    """
    random, simulator = rng("demo-noise", seed, task.name, number), env.env.unwrapped
    assert isinstance(simulator, MujocoEnv)
    observation, _ = env.reset(seed=derive_seed("demo-start", seed, task.name, number))
    seen = [observation]
    actions: list[np.ndarray] = []
    executed: list[np.ndarray] = []
    states: list[np.ndarray] = []
    rewards: list[float] = []
    ends: list[bool] = []
    solved = over = False
    while not over:
        action = expert(observation)
        moved = np.clip(action + noise * random.standard_normal(len(action)), -1, 1)
        data = simulator.data
        states.append(np.concatenate([[data.time], data.qpos, data.qvel]))
        observation, reward, terminated, truncated, info = env.step(moved)
        seen.append(observation)
        actions.append(action)
        executed.append(moved)
        rewards.append(reward)
        ends.append(terminated)
        solved |= info["success"]
        over = terminated or truncated
    if not solved:
        return None
    columns = np.stack(seen)
    return Demonstration(
        states=np.stack(states),
        actions=np.stack(actions),
        rewards=np.array(rewards),
        observations={KEY: columns[:-1]},
        following={KEY: columns[1:]},
        model_xml="",
        executed=np.stack(executed),
        ends=np.array(ends),
    )
