"""What a task allows by way of disturbing its expert while it is recorded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Disturbance:
    """Of a task with `action_dim` commands: a shove leaves the commands `grip` to the expert (its gripper's).

    `height` is where a state says how high the object is (m), without which nothing slips; no shove lifts it near
    `ceiling`, where the episode would end. A run lingers `linger` times as long as asked for once it has been solved.
    """

    action_dim: int
    grip: tuple[int, ...] = ()
    height: int | None = None
    ceiling: float = float("inf")
    linger: float = 1.0
