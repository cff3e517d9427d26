"""The folder of a steering run: what it was asked for, where it is, its result."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dsrl.config import DSRLConfig
from dsrl.diffusion_policy import DiffusionPolicy
from runtime import interrupt
from runtime.atomic import checksum, read_json, write_json
from runtime.checkpoint import load_checkpoint, replace_torch
from runtime.config import to_dict
from runtime.errors import DataError, StateError

if TYPE_CHECKING:
    from dsrl.steering import Steering

# A run may be continued with other values of these than it began with.
_FREE = ("save_dir", "device", "workers", "checkpoint_seconds")


class SteeringFolder:
    """`config.json`, `resume.pt` while a run is not finished, `result.json` afterwards."""

    def __init__(self, path: Path, config: DSRLConfig, policy: DiffusionPolicy) -> None:
        """Raises `StateError` where a run with other settings or of another policy has left something."""
        self.path, self.checkpoint_seconds = path, config.checkpoint_seconds
        self._resume, self._result = path / "resume.pt", path / "result.json"
        wanted = {**to_dict(config), "policy": checksum(policy.checkpoint.path)}
        asked = path / "config.json"
        if asked.exists() and (self._resume.exists() or self._result.exists()):
            _expect_same(asked, wanted)
        write_json(asked, wanted)
        self._saved = time.monotonic()

    def result(self) -> dict[str, Any] | None:
        return read_json(self._result) if self._result.exists() else None

    def restore(self, run: Steering) -> None:
        """Bring `run` to where a killed one was. Raises `DataError` for a damaged file."""
        if not self._resume.exists():
            return
        try:
            state = load_checkpoint(self._resume)
        except DataError as error:
            raise DataError(f"{error}; remove it to begin anew") from error
        run.restore(state)

    def save_if_due(self, run: Steering) -> None:
        """Save now and then; where the process was asked to stop, save and raise `Interrupted`."""
        stop = interrupt.requested()
        if stop or time.monotonic() - self._saved > self.checkpoint_seconds:
            replace_torch(_of_tensors(run.state()), self._resume)
            self._saved = time.monotonic()
        if stop:
            raise interrupt.Interrupted

    def finish(self, result: dict[str, Any]) -> None:
        write_json(self._result, result)
        self._resume.unlink(missing_ok=True)


def _expect_same(asked: Path, wanted: dict[str, Any]) -> None:
    before = read_json(asked)
    differing = [name for name in wanted if name not in _FREE and before.get(name) != wanted[name]]
    if differing:
        raise StateError(
            f"{asked}: a run with other settings ({', '.join(differing)}); "
            "give another --save_dir or move the folder away"
        )


def _of_tensors(value: Any) -> Any:
    """The same with arrays as tensors, which can be read without trusting the file."""
    if isinstance(value, dict):
        return {key: _of_tensors(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_tensors(inner) for inner in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
