"""Graphs over the factors of the state that are composed by hand (Mendez et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """A factor's place in the graph: widths of the layers on its own input, then of the one on [previous node, own]."""

    factor: str
    own: tuple[int, ...]
    joint: int | None  # None: the output's


GRAPHS = {
    # The order of the multitask TD3+BC baseline.
    "compositional": (
        Node("proprioception", (), 76),
        Node("goal", (76,), 76),
        Node("object", (38, 38), 38),
        Node("obstacle", (38, 38, 38), None),
    ),
    # The order of CP-BC and CP-IQL (Hussing et al. 2023) and of the compositional denoiser (ICDG).
    "cp": (
        Node("obstacle", (), 32),
        Node("object", (32,), 32),
        Node("goal", (64, 64), 64),
        Node("proprioception", (64, 64, 64), None),
    ),
}
