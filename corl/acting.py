"""How a policy acts: its actions as they are, or varied so that it does not stand still for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.seeds import rng

CERTAIN = 0.8
"""From this size on an expected command of which only the sign counts has that sign."""


@dataclass(frozen=True)
class Acting:
    """By default as the policy says. `noise` is the standard deviation of normal noise on every action.

    What a policy expects of a command of which only the sign counts (`binary`: the numbers of an action) is twice the
    probability of + less one: where it expects -0.5, the demonstrations had + in one of four cases, and a policy that
    takes it as it is has - for ever. With `binary_hold` the sign is drawn, by one number for so many steps, since a
    gripper needs some to close. What is expected beyond `CERTAIN` is not drawn, so that a hand that holds does not let
    go; the probability of + goes from 0 to 1 between -`CERTAIN` and `CERTAIN`.
    """

    noise: float = 0.0
    binary_hold: int = 0
    binary: tuple[int, ...] = ()

    def begin(self, seeds: Sequence[int]) -> Variation:
        """For an episode of each seed."""
        return Variation(self, seeds)


AS_IT_IS = Acting()


class Variation:
    """Of the actions (K, A) of K episodes under way, each from generators of its own."""

    _BLOCK = 256  # steps whose noise is drawn together

    def __init__(self, acting: Acting, seeds: Sequence[int]) -> None:
        self.acting = acting
        self._noises = [rng("act", seed) for seed in seeds]
        self._signs = [rng("act, binary", seed) for seed in seeds]
        self._block = self._bounds = np.empty(0, np.float32)
        self._step = 0

    def on(self, actions: np.ndarray) -> np.ndarray:
        """What is done in this step: the policy's actions, or varied ones within [-1, 1]."""
        if self.acting.noise == 0 and not (self.acting.binary_hold and self.acting.binary):
            return actions
        varied = np.clip(actions + self.acting.noise * self._noise(actions.shape[1]), -1.0, 1.0)
        hold, binary = self.acting.binary_hold, list(self.acting.binary)
        if hold and binary:
            if self._step % hold == 0:
                self._bounds = np.stack([signs.uniform(-CERTAIN, CERTAIN, len(binary)) for signs in self._signs])
            varied[:, binary] = np.where(actions[:, binary] > self._bounds, 1.0, -1.0)
        self._step += 1
        return varied

    def _noise(self, width: int) -> np.ndarray:
        at = self._step % self._BLOCK
        if at == 0:
            shape = (self._BLOCK, width)
            self._block = np.stack([noise.standard_normal(shape, np.float32) for noise in self._noises], 1)
        noise: np.ndarray = self._block[at]
        return noise
