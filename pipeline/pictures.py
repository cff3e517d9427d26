"""Film strips of a policy at work."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from corl.policy import Policy
from corl.train import PolicyConfig, checkpoint_file
from offline_compositional_rl_datasets.task import Task
from runtime.seeds import derive_seed

_FRAMES = 6
_SIZE = (300, 300)  # width, height of a frame in pixels
_ATTEMPTS = 5


def film_strip(task: Task, folder: Path, config: PolicyConfig, seed: int) -> tuple[bytes, bool]:
    """A PNG of frames side by side, evenly over an episode until its success, and whether it succeeded.

    Shows the first successful one of a few episodes with the best checkpoint in `folder`. Raises `RenderError` where
    the machine cannot draw.
    """
    import imageio.v3 as imageio

    policy = Policy.load(checkpoint_file(folder, config.algorithm, "best_successrate"))
    for attempt in range(_ATTEMPTS):
        frames, success = _episode(task, policy, config.horizon, derive_seed("film", seed, attempt))
        if success:
            break
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)]
    buffer = io.BytesIO()
    imageio.imwrite(buffer, np.concatenate(chosen, axis=1), extension=".png")
    return buffer.getvalue(), success


def _episode(task: Task, policy: Policy, horizon: int, seed: int) -> tuple[list[np.ndarray], bool]:
    """Every tenth frame of an episode, which ends a second after its first success."""
    import envs

    environment = envs.make(task, horizon=horizon, camera="film", width=_SIZE[0], height=_SIZE[1])
    try:
        observation, _ = environment.reset(seed=seed)
        frames, success, since = [], False, 0
        while True:
            if len(frames) * 10 == environment.steps:
                frames.append(environment.render())
            observation, _, terminated, truncated, info = environment.step(policy(observation[None])[0])
            success = info["success"]
            since = since + 1 if success else 0
            if terminated or truncated or since >= 20:
                return [*frames, environment.render()], success
    finally:
        environment.close()
