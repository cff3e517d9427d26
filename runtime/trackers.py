"""Where figures also go while a run is under way: Weights & Biases, TensorBoard. Files are written without them too."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import ConfigError

_WANDB_HOST = ("api.wandb.ai", 443)
_PATIENCE_SECONDS = 3.0

Sink = Callable[[int, Mapping[str, float]], None]


def wandb_mode() -> str:
    """`WANDB_MODE` where it is set; else `online` where a key is known and the service answers, else `offline`."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if "WANDB_API_KEY" not in os.environ and not _has_netrc():
        return "offline"
    try:
        socket.create_connection(_WANDB_HOST, timeout=_PATIENCE_SECONDS).close()
    except OSError:
        return "offline"
    return "online"


def _has_netrc() -> bool:
    try:
        return (Path.home() / ".netrc").exists()
    except (RuntimeError, OSError):  # no home, or one that is not theirs
        return False


def ensure_home(folder: Path) -> None:
    """Let `folder` be the home of a user who has none (in a container): W&B cannot be imported without."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(folder.absolute())


@contextlib.contextmanager
def trackers(
    folder: Path, config: Mapping[str, Any], *, name: str, project: str | None = None, tensorboard: bool = False
) -> Iterator[Sink | None]:
    """A sink of figures: W&B where a project is named, TensorBoard where asked; None without either.

    Both write below `folder`. A run that is continued goes on under its W&B id. Raises `ConfigError` where a package
    that is asked for is not installed.
    """
    sinks: list[Sink] = []
    with contextlib.ExitStack() as stack:
        if project is not None:
            sinks.append(_wandb_sink(stack, folder, config, name, project))
        if tensorboard:
            sinks.append(_tensorboard_sink(stack, folder))

        def emit(step: int, figures: Mapping[str, float]) -> None:
            for sink in sinks:
                sink(step, figures)

        yield emit if sinks else None


def _wandb_sink(stack: contextlib.ExitStack, folder: Path, config: Mapping[str, Any], name: str, project: str) -> Sink:
    mode = wandb_mode()
    ensure_home(folder)
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("--track: the package wandb is not installed") from error
    run = wandb.init(
        project=project,
        name=name,
        id="".join(c if c.isalnum() or c in "-_" else "_" for c in name)[-100:],
        resume="allow",
        dir=folder,
        config=dict(config),
        mode=mode,  # type: ignore[arg-type]  # `wandb_mode` gives one that it knows
    )
    stack.callback(run.finish)
    return lambda step, figures: run.log(dict(figures), step=step)


def _tensorboard_sink(stack: contextlib.ExitStack, folder: Path) -> Sink:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("--tensorboard: the package tensorboard is not installed") from error
    writer = SummaryWriter(folder / "tensorboard")
    stack.callback(writer.close)

    def emit(step: int, figures: Mapping[str, float]) -> None:
        for tag, value in figures.items():
            writer.add_scalar(tag, value, step)

    return emit
