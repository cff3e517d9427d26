"""RLPD's symmetric sampling (Ball et al. 2023, section 4.1): a fixed share of every batch comes from prior data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corl.batch import Batch
from corl.online_replay import ObservationCode, OnlineReplay, RowCode
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.checks import expect_range


@dataclass(frozen=True)
class MixSchedule:
    """The share of prior data: `start`, then from step `decay_start` on linear to `end` over `decay_steps`.

    Defaults are those of the published ICDG code; RLPD keeps 0.5 throughout.
    """

    start: float = 0.5
    end: float = 0.0
    decay_steps: int = 500_000
    decay_start: int = 500_000

    def __post_init__(self) -> None:
        expect_range(self, "start", "end", most=1)
        expect_range(self, "decay_steps", least=1)
        expect_range(self, "decay_start")

    def ratio(self, step: int) -> float:
        done = min(max((step - self.decay_start) / self.decay_steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * done


class PriorData:
    """Transitions of one or many tasks as rows on the device, with the observations that the agent sees."""

    def __init__(self, parts: Sequence[Transitions], code: ObservationCode, device: torch.device) -> None:
        rows = [
            code.rows(
                code(part.states, part.only_task),
                part.actions,
                part.rewards,
                code(part.next_states, part.only_task),
                part.terminals,
            )
            for part in parts
        ]
        self.rows = torch.from_numpy(np.concatenate(rows)).to(device)

    def __len__(self) -> int:
        return len(self.rows)


def sample(
    replay: OnlineReplay,
    prior: PriorData | None,
    offline: int,
    *,
    updates: int,
    batch_size: int,
    code: RowCode,
    generator: torch.Generator,
) -> Batch:
    """Batches (U, B, ...), with replacement; the first `offline` rows of each are prior data, the others our own."""
    parts: list[Tensor] = []

    def draw(rows: Tensor, size: int, count: int) -> None:
        chosen = torch.randint(size, (updates, count), generator=generator, device=replay.rows.device)
        parts.append(rows[chosen])

    if prior is not None and offline:
        draw(prior.rows, len(prior), offline)
    if batch_size > offline:
        draw(replay.rows, len(replay), batch_size - offline)
    return code.cut(torch.cat(parts, dim=1))
