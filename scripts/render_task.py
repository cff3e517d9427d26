"""Film an expert or a trained policy at a task, or draw the starts of all tasks of a robot; needs no screen.

Examples:
    python -m scripts.render_task IIWA_Box_None_PickPlace --out pick.mp4
    python -m scripts.render_task IIWA_Plate_None_Shelf --checkpoint POLICY.pt --out shelf.gif
    python -m scripts.render_task --robot IIWA --out tasks.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.cli import parse_flags
from runtime.main import run_main

VIDEOS, PICTURES = (".mp4", ".gif"), (".png", ".jpg")


def main(
    out: Path,
    task: str = "",
    robot: str = "",
    checkpoint: Path | None = None,
    policy: Path | None = None,
    camera: str = "film",
    width: int = 480,
    height: int = 352,
    seed: int = 0,
    horizon: int = 500,
) -> None:
    """Write a video (.mp4, .gif) or a film strip (.png, .jpg) of an episode; with --robot a sheet of all its tasks.

    Args:
        out: file to write; its ending decides
        task: name such as IIWA_Box_None_PickPlace; it may stand first, without the flag
        robot: or a picture of the starts of all tasks of this robot
        checkpoint: a trained policy's checkpoint; default: the scripted expert
        policy: or a published CompoSuite policy's state_dicts.pt
        camera: film, frontview, birdview, agentview, sideview or robot0_eye_in_hand
        width: of a frame (pixels)
        height: of a frame (pixels)
        seed: of the start
        horizon: longest episode in control steps
    """
    import imageio.v3 as imageio

    from corl.policy import Policy
    from envs.experts import expert_for
    from envs.task_env import CONTROL_FREQUENCY
    from offline_compositional_rl_datasets.composuite import CompoSuiteTask, tasks_of
    from pipeline.report.pictures import contact_sheet, episode_frames
    from runtime.atomic import atomic_path
    from runtime.errors import ConfigError

    if bool(task) == bool(robot):
        raise ConfigError("expected either --task or --robot")
    if (checkpoint and policy) or (robot and (checkpoint or policy)):
        raise ConfigError("expected one of --checkpoint and --policy at most, and with --task")
    if horizon < 1 or seed < 0 or width < 1 or height < 1:
        raise ConfigError(
            f"horizon {horizon}, seed {seed}, width {width}, height {height}: expected at least 1, 0, 1 and 1"
        )
    if out.suffix not in VIDEOS + PICTURES or (robot and out.suffix not in PICTURES):
        raise ConfigError(
            f"--out {out}: expected a name ending in {', '.join(PICTURES if robot else VIDEOS + PICTURES)}"
        )
    if robot:
        picture = contact_sheet(tasks_of(robot), columns=8, size=(220, 165), seed=seed)
        _write_picture(out, picture)
        return
    chosen = CompoSuiteTask.parse(task)
    actor = Policy.load(checkpoint, chosen.layout) if checkpoint else expert_for(chosen, policy)
    film = out.suffix in VIDEOS
    every = 2 if film else 10
    frames, success = episode_frames(
        chosen, actor, horizon=horizon, seed=seed, size=(width, height), every=every, camera=camera
    )
    if film:
        with atomic_path(out) as temporary:
            rate = CONTROL_FREQUENCY / every
            timing = {"duration": 1000 / rate, "loop": 0} if out.suffix == ".gif" else {"fps": rate}
            imageio.imwrite(temporary, np.stack(frames), **timing)
    else:
        _write_picture(
            out, np.concatenate([frames[i] for i in np.linspace(0, len(frames) - 1, 6).round().astype(int)], axis=1)
        )
    print(f"{out}: {len(frames)} frames, {'solved' if success else 'not solved'}")


def _write_picture(out: Path, picture: np.ndarray) -> None:
    import imageio.v3 as imageio

    from runtime.atomic import atomic_path

    with atomic_path(out) as temporary:
        imageio.imwrite(temporary, picture)


def _with_flag(given: Sequence[str]) -> list[str]:
    """`TASK ...` is `--task TASK ...`."""
    return ["--task", *given] if given and not given[0].startswith("-") else list(given)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main, _with_flag(sys.argv[1:])))
