"""What the policy sees of an observation, and the scaling of observations and actions to [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsrl.config import RELATIVE_QUATERNION
from dsrl.tasks import Task
from envs.robomimic.task import RobomimicTask
from runtime.errors import ConfigError

CONSTANT = 1e-4
"""A dimension with a smaller range counts as constant."""

BOUND = 5.0
"""Normalised observations are clamped to +-BOUND: what is far outside the data is far outside, and no further."""


@dataclass(frozen=True)
class MinMax:
    """x -> 2 (x - low) / (high - low) - 1 per dimension; one that is constant in the data -> x - its middle."""

    low: Tensor
    high: Tensor

    @classmethod
    def fit(cls, data: Tensor) -> MinMax:
        """Over data (N, D)."""
        return cls(data.amin(dim=0), data.amax(dim=0))

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def half_range(self) -> Tensor:
        """(D,) never zero: 1 for constant dimensions."""
        span = self.high - self.low
        return torch.where(span < CONSTANT, torch.ones_like(span), span / 2)

    def normalize(self, x: Tensor) -> Tensor:
        return (x - self.middle) / self.half_range

    def denormalize(self, x: Tensor) -> Tensor:
        return x * self.half_range + self.middle

    def to(self, device: torch.device) -> MinMax:
        return MinMax(self.low.to(device), self.high.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        return {"low": self.low, "high": self.high}


def feature_columns(task: Task, keys: Sequence[str], relative_quaternion: str) -> slice | None:
    """Columns of the object's orientation relative to the hand where they are not taken as they are.

    robosuite gives it with w >= 0, and with the hand pointing down w is near 0: the four numbers flip their sign
    several times an episode. Lift's observation has no such part. Raises `ConfigError` for an unknown treatment.
    """
    if relative_quaternion not in RELATIVE_QUATERNION:
        raise ConfigError(f"relative_quaternion {relative_quaternion!r}: expected {', '.join(RELATIVE_QUATERNION)}")
    if relative_quaternion == "raw" or "object" not in keys:
        return None
    if not isinstance(task, RobomimicTask) or task.name == "lift":
        return None
    if task.name not in ("can", "square"):
        raise ConfigError(f"relative_quaternion {relative_quaternion!r}: expected raw for {task}")
    dims = task.observation_dims
    start = sum(dims[key] for key in keys[: list(keys).index("object")])
    # Position and quaternion of the object, then the same from the hand; robosuite 1.5 has them the other way round.
    start += 10 if task.arguments.series == "1.4" else 3
    return slice(start, start + 4)


def features(observation: Tensor, columns: slice | None, relative_quaternion: str) -> Tensor:
    """(B, D) -> (B, D'): the quaternion (x, y, z, w) in `columns` dropped, or as two columns of its rotation matrix,
    which do not depend on its sign."""
    if columns is None:
        return observation
    before, quaternion, after = (
        observation[:, : columns.start],
        observation[:, columns],
        observation[:, columns.stop :],
    )
    if relative_quaternion == "drop":
        return torch.cat([before, after], dim=1)
    x, y, z, w = quaternion.unbind(dim=1)
    six = torch.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y + z * w),
            2 * (x * z - y * w),
            2 * (x * y - z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z + x * w),
        ],
        dim=1,
    )
    return torch.cat([before, six, after], dim=1)
