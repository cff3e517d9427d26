"""What a check of a set against the simulator found, as it stands in `physics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from runtime.errors import DataError

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantiles that stand for a distribution of errors."""

UNITS = {
    "arm joints": "rad",
    "joint velocities": "rad/s",
    "fingers": "mm",
    "tool position": "mm",
    "object position": "mm",
    "object rotation": "deg",
    "reward": "",
    "tool within s": "mm",
}
"""Quantity -> unit. The last asks whether s agrees with itself: the tool's position follows from the joints."""

Quantiles = Mapping[str, list[float]]
"""Quantity -> its error at each of `LEVELS`; one that was never found (every row undetermined) is left out."""


@dataclass(frozen=True)
class PhysicsSummary:
    """Errors of generated and of real data, and by how much a real step `moved` each quantity.

    `rows` were checked; the share `undetermined` of them has no answer. Raises `DataError` for other quantiles or units
    than those of this module, `TaskError` for an unknown task.
    """

    task: str
    rows: int
    undetermined: float
    levels: list[float]
    units: Mapping[str, str]
    generated: Quantiles
    real: Quantiles
    moved: Quantiles

    def __post_init__(self) -> None:
        CompoSuiteTask.parse(self.task)
        if tuple(self.levels) != LEVELS or dict(self.units) != UNITS:
            raise DataError(f"{self.task}: quantiles {self.levels} of {', '.join(self.units)}, expected others")
        for kind in (self.generated, self.real, self.moved):
            for name, values in kind.items():
                if name not in UNITS or len(values) != len(LEVELS):
                    raise DataError(f"{self.task}: {len(values)} quantiles of {name}, expected {len(LEVELS)}")

    def quantiles(self, kind: str, name: str) -> dict[float, float]:
        """Level -> error of `generated`, `real` or `moved`; empty where there is none."""
        return dict(zip(self.levels, getattr(self, kind).get(name, ()), strict=False))
