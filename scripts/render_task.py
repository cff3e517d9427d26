"""Film an expert or a trained policy at a task, or draw the starts of many tasks; needs no screen.

Examples:
    python -m scripts.render_task IIWA_Box_None_PickPlace --out pick.mp4
    python -m scripts.render_task IIWA_Plate_None_Shelf --checkpoint POLICY.pt --out shelf.gif
    python -m scripts.render_task --robot IIWA --out tasks.png
    python -m scripts.render_task --family examples.arm_family:FAMILY --all_tasks --out arms.png
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.commands.tasks_flags import TasksFlags
from runtime.cli import parse_flags
from runtime.main import run_main

VIDEOS, PICTURES = (".mp4", ".gif"), (".png", ".jpg")


@dataclass(frozen=True)
class FilmFlags:
    """How an episode is filmed."""

    camera: str = "film"
    """of CompoSuite: film, frontview, birdview, agentview, sideview or robot0_eye_in_hand"""
    width: int = 480
    """of a frame (pixels)"""
    height: int = 352
    """of a frame (pixels)"""
    seed: int = 0
    """of the start"""
    horizon: int = 500
    """longest episode in control steps"""


def main(
    out: Path, of: TasksFlags, film: FilmFlags, checkpoint: Path | None = None, policy: Path | None = None
) -> None:
    """Write a video (.mp4, .gif) or a film strip (.png, .jpg) of an episode; of several tasks a sheet of their starts.

    A single task may stand first, without the flag. Families whose environments render pictures have them.

    Args:
        out: file to write; its ending decides
        checkpoint: a trained policy's checkpoint; default: the family's expert
        policy: or a published CompoSuite policy's state_dicts.pt
    """
    from corl.policy import Policy
    from envs.family import family_of
    from pipeline.report.pictures import contact_sheet, evenly, film_episode
    from runtime.errors import ConfigError
    from runtime.media import write_picture, write_video

    single = len(of.tasks) == 1
    if (checkpoint and policy) or (not single and (checkpoint or policy)):
        raise ConfigError("expected one of --checkpoint and --policy at most, and with a single task")
    size = (film.width, film.height)
    if film.horizon < 1 or film.seed < 0 or min(size) < 1:
        given = f"horizon {film.horizon}, seed {film.seed}, width {film.width}, height {film.height}"
        raise ConfigError(f"{given}: expected at least 1, 0, 1 and 1")
    endings = VIDEOS + PICTURES if single else PICTURES
    if out.suffix not in endings:
        raise ConfigError(f"--out {out}: expected a name ending in {', '.join(endings)}")
    if policy:
        of.expect_composuite("--policy")
    task, *others = of.chosen()
    if not single:
        write_picture(out, contact_sheet([task, *others], columns=8, size=(220, 165), seed=film.seed))
        return
    family = family_of(task)
    actor: Callable[[np.ndarray], np.ndarray]
    if checkpoint:
        actor = Policy.load(checkpoint, task.layout)
    else:
        actor = family.expert(task) if policy is None else family.expert(task, policy)
    filmed = out.suffix in VIDEOS
    every, camera = 2 if filmed else 10, film.camera
    episode = film_episode(task, actor, horizon=film.horizon, seed=film.seed, size=size, every=every, camera=camera)
    if filmed:
        write_video(out, episode.frames, episode.rate)
    else:
        write_picture(out, np.concatenate(evenly(episode.frames, 6), axis=1))
    print(f"{out}: {len(episode.frames)} frames, {'solved' if episode.success else 'not solved'}")


def _with_flag(given: Sequence[str]) -> list[str]:
    """`TASK ...` is `--task TASK ...`."""
    return ["--task", *given] if given and not given[0].startswith("-") else list(given)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main, _with_flag(sys.argv[1:])))
