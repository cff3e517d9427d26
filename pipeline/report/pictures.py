"""Pictures of a policy at work: frames of an episode, film strips, a contact sheet of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np

from corl.acting import AS_IT_IS
from corl.config import PolicyConfig
from corl.policy import Policy, checkpoint_file
from envs.family import family_of
from offline_compositional_rl_datasets.task import Task
from pipeline.stages.online import LearnOnline
from runtime.media import write_video
from runtime.seeds import derive_seed

_FRAMES = 6
_SIZE = (256, 256)  # width, height of a frame in pixels
_ATTEMPTS = 5
_STEPS_PER_SECOND = 20  # of families that do not say
_VIDEO_SIZE = (320, 320)


@dataclass(frozen=True)
class Film:
    """Frames (height, width, 3) uint8 of an episode, how many of them a second has, and whether the task was solved."""

    frames: list[np.ndarray]
    rate: float
    success: bool


def film_strip(task: Task, folder: Path, config: PolicyConfig, seed: int) -> tuple[np.ndarray, bool]:
    """Frames side by side (height, width, 3) uint8, evenly over an episode until its success; whether it succeeded.

    Shows the first successful one of a few episodes with the best checkpoint in `folder`. Raises `RenderError` where
    the machine cannot draw.
    """
    policy = Policy.load(checkpoint_file(folder, config.algorithm, "best_successrate"), task.layout)
    for attempt in range(_ATTEMPTS):
        film = film_episode(task, policy, horizon=config.horizon, seed=derive_seed("film", seed, attempt), size=_SIZE)
        if film.success:
            break
    return np.concatenate(evenly(film.frames, _FRAMES), axis=1), film.success


def evenly(frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """`count` of the frames, from the first to the last."""
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def film_episode(
    task: Task,
    policy: Callable[[np.ndarray], np.ndarray],
    *,
    horizon: int,
    seed: int,
    size: tuple[int, int],
    every: int = 10,
    camera: str = "film",
) -> Film:
    """Every `every`-th frame of an episode, which ends a second after its first success.

    `size` is (width, height). A policy with `acting` acts so. Raises `RenderError` where the machine cannot draw,
    `ConfigError` where the task's family has no pictures.
    """
    variation = getattr(policy, "acting", AS_IT_IS).begin([seed])
    family = family_of(task)
    environment = family.drawn_environment(task, horizon=horizon, size=size, camera=camera)
    rate = family.steps_per_second(environment) or _STEPS_PER_SECOND
    try:
        observation, _ = environment.reset(seed=seed)
        frames: list[np.ndarray] = []
        step = since = 0
        while True:
            if step % every == 0:
                frames.append(_picture(environment))
            actions = variation.on(policy(observation[None]))
            observation, _, terminated, truncated, info = environment.step(actions[0])
            success = info["success"]
            since = since + 1 if success else 0
            if terminated or truncated or since >= rate:
                return Film([*frames, _picture(environment)], rate / every, success)
            step += 1
    finally:
        environment.close()


def _picture(environment: gymnasium.Env) -> np.ndarray:
    return np.asarray(environment.render())


def contact_sheet(tasks: Sequence[Task], *, columns: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """The start of each task in one picture, row by row, with its name; (height, width, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(columns * size[0] / 100, rows * (size[1] / 100 + 0.22)), dpi=100)
    for place, task in enumerate(tasks):
        environment = family_of(task).drawn_environment(task, size=size)
        environment.reset(seed=seed)
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(_picture(environment))
        axes.set_title(task.label, fontsize=7, pad=2)
        axes.axis("off")
        environment.close()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.985, wspace=0.02, hspace=0.12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def film_best(stage: LearnOnline, path: Path) -> bool:
    """Write a video of an episode of the best policy; whether it solved the task.

    Raises `RenderError` where the machine cannot draw.
    """
    film = film_episode(
        stage.task,
        stage.best_policy(),
        horizon=stage.config.horizon,
        seed=derive_seed("film", stage.seed),
        size=_VIDEO_SIZE,
        every=2,
    )
    write_video(path, film.frames, film.rate)
    return film.success
