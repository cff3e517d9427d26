"""The folder of a steering run: what it was asked for, its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.config import DSRLConfig
from dsrl.steerable import SteerablePolicy
from runtime.atomic import checksum, write_json
from runtime.config import config_hash, to_dict
from runtime.errors import DataError, StateError
from runtime.records import decode, read_mapping
from runtime.resumable import RESUME_FILE, discard

# A run may be continued with other values of these than it began with.
_FREE = (
    *("save_dir", "device", "workers", "checkpoint_seconds", "checkpoint_every", "keep_buffer"),
    *("eval_envs", "eval_workers"),
)


@dataclass(frozen=True)
class _Tried:
    """What one way to act came to on the fresh episodes."""

    solved: int
    episodes: int
    rate: float
    low: float
    high: float
    mean_decisions: float


@dataclass(frozen=True)
class _Result:
    """What is read of `result.json` again."""

    cloned: _Tried
    steered: _Tried
    steered_deterministic: _Tried
    use: str


class SteeringFolder:
    """`config.json`, `resume.pt` while a run is not finished, `result.json` afterwards."""

    def __init__(self, path: Path, config: DSRLConfig, policy: SteerablePolicy) -> None:
        """Raises `StateError` where a run with other settings or of another policy has left something."""
        self.path = path
        self._result = path / "result.json"
        wanted = {**to_dict(config), "policy": policy.identity}
        if config.offline_data:
            if not Path(config.offline_data).is_file():
                raise DataError(f"offline_data {config.offline_data}: no such file")
            wanted["offline_data"] = checksum(config.offline_data)
        self.key = config_hash({name: value for name, value in wanted.items() if name not in _FREE})
        asked = path / "config.json"
        if asked.exists() and ((path / RESUME_FILE).exists() or self._result.exists()):
            _expect_same(asked, wanted)
        write_json(asked, wanted)

    def result(self) -> Mapping[str, Any] | None:
        """None while the run is not finished. Raises `DataError` where the file holds no result."""
        if not self._result.exists():
            return None
        written = read_mapping(self._result)
        decode(_Result, written, source=str(self._result), strict=False)
        return written

    def finish(self, result: dict[str, Any]) -> None:
        write_json(self._result, result)
        discard(self.path)


def _expect_same(asked: Path, wanted: dict[str, Any]) -> None:
    before = read_mapping(asked)
    differing = [name for name in wanted if name not in _FREE and before.get(name) != wanted[name]]
    if differing:
        raise StateError(
            f"{asked}: a run with other settings ({', '.join(differing)}); "
            "give another --save_dir or move the folder away"
        )
