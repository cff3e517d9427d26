"""Weights & Biases as a second place for metrics: off unless a project is named, and then offline unless asked.

Environment variables carry the choice, so that jobs inherit it: ICDG_WANDB_PROJECT, and ICDG_WANDB=online. Offline runs
lie in `wandb/` beside the metrics; `wandb sync` uploads them. A sink that fails is a warning: the metrics are in files.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

from runtime.errors import ConfigError
from runtime.trackers import ensure_home

log = logging.getLogger(__name__)

PROJECT, MODE = "ICDG_WANDB_PROJECT", "ICDG_WANDB"
MODES = ("offline", "online")


def use_wandb(project: str | None, mode: str | None = None) -> None:
    """Send the metrics of this process and its jobs to a project too. Raises `ConfigError` for an unknown mode."""
    if mode is not None and mode not in MODES:
        raise ConfigError(f"wandb {mode!r}: expected one of {', '.join(MODES)}")
    if project:
        os.environ[PROJECT] = project
    if mode:
        os.environ[MODE] = mode
    if mode and not os.environ.get(PROJECT):
        raise ConfigError(f"wandb {mode}: expected --wandb_project too")


class WandbSink:
    """One W&B run for a folder of metrics; the same folder continues the same run. Starts with the first row."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder).absolute()
        self._run: Any = None
        self._failed = False

    def log(self, step: int, values: dict[str, Any]) -> None:
        if self._failed or not os.environ.get(PROJECT):
            return
        try:
            if self._run is None:
                self._run = self._start()
            self._run.log(values, step=step, commit=True)
        except Exception as error:
            self._failed = True
            log.warning("no metrics to W&B from %s: %s", self._folder, error)

    def _start(self) -> Any:
        ensure_home(self._folder)
        import wandb

        parts = self._folder.parts[-2:]
        return wandb.init(
            project=os.environ[PROJECT],
            mode=os.environ.get(MODE, "offline"),  # type: ignore[arg-type]  # it refuses what it does not know
            name="/".join(parts),
            id=hashlib.sha256(str(self._folder).encode()).hexdigest()[:16],
            resume="allow",
            dir=self._folder,
            reinit="create_new",  # a process may train many policies, each a run of its own
            settings=wandb.Settings(silent=True, console="off"),
        )

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
