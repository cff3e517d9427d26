"""Pictures and videos as files, written whole or not at all. Needs imageio (and its ffmpeg for .mp4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.atomic import atomic_path


def write_picture(path: Path, picture: np.ndarray, quality: int | None = None) -> None:
    """Write `picture` (height, width, 3) uint8 as a .png or .jpg file; `quality` (1 to 95) is that of a .jpg."""
    import imageio.v3 as imageio

    options: dict[str, Any] = {} if quality is None else {"quality": quality}
    with atomic_path(path) as temporary:
        imageio.imwrite(temporary, picture, **options)


def write_video(path: Path, frames: Sequence[np.ndarray], rate: float) -> None:
    """Write `frames`, each (height, width, 3) uint8, as .mp4 or as a .gif that starts anew; `rate` in frames/s."""
    import imageio.v3 as imageio

    options: dict[str, Any] = {"duration": 1000 / rate, "loop": 0} if path.suffix == ".gif" else {"fps": rate}
    with atomic_path(path) as temporary:
        imageio.imwrite(temporary, np.stack(frames), **options)
