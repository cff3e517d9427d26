"""The factored layout of states and transitions. Nobody else writes down 14, 45, 77, 93 or 164.

A state is the concatenation of factors; each factor belongs to one axis of the task and has its own encoder per
element of that axis. An observation is a state with the task's ids in it. A transition is the flat vector
[s, a, r, s', done]. Every family of tasks has a layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Factor:
    """A contiguous part of the state that one axis of the task labels."""

    name: str
    dim: int
    axis: str


@dataclass(frozen=True)
class Token:
    """A part of the transition vector that the generator treats as one token.

    `axis` chooses the encoder by the task's element (None: a single encoder). Tokens with the same `encoder` share
    weights (the parts of s and s').
    """

    name: str
    part: slice
    axis: str | None
    encoder: str

    @property
    def dim(self) -> int:
        start, stop = self.part.start, self.part.stop
        return int(stop - start)


@dataclass(frozen=True)
class FactoredLayout:
    """Factors of the state, size of the action, and where the task ids sit in a stored observation.

    `axes` gives each axis' elements in one-hot order; `ids_after` names the factor after which the id block stands in
    an observation with ids. `relative_quaternions` are the slices of the state whose sign carries no meaning,
    `velocities` those that mostly tell what the last action was; `quaternions` those of unit length (all zero where
    there is no such body) and `angles` the cosines and sines of the same angles. `binary_actions` are the numbers of an
    action of which only the sign counts (a gripper that opens or closes).
    """

    factors: tuple[Factor, ...]
    action_dim: int
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    ids_after: str
    relative_quaternions: tuple[slice, ...] = ()
    velocities: tuple[slice, ...] = ()
    quaternions: tuple[slice, ...] = ()
    angles: tuple[tuple[slice, slice], ...] = ()
    binary_actions: tuple[int, ...] = ()

    @cached_property
    def state_dim(self) -> int:
        return sum(factor.dim for factor in self.factors)

    @cached_property
    def condition_dim(self) -> int:
        return sum(len(elements) for _, elements in self.axes)

    @cached_property
    def observation_dim(self) -> int:
        """Size of an observation with task ids."""
        return self.state_dim + self.condition_dim

    @cached_property
    def transition_dim(self) -> int:
        return 2 * self.state_dim + self.action_dim + 2

    @cached_property
    def factor_slices(self) -> dict[str, slice]:
        """Where each factor sits in a state without ids."""
        slices, start = {}, 0
        for factor in self.factors:
            slices[factor.name] = slice(start, start + factor.dim)
            start += factor.dim
        return slices

    @cached_property
    def ids_slice(self) -> slice:
        """Where the task ids sit in an observation with ids."""
        start = self.factor_slices[self.ids_after].stop
        return slice(start, start + self.condition_dim)

    @cached_property
    def slices_with_ids(self) -> dict[str, slice]:
        """Where each factor sits in an observation with ids."""
        behind = self.ids_slice.start
        shifts = {name: self.condition_dim if part.start >= behind else 0 for name, part in self.factor_slices.items()}
        return {name: slice(s.start + shifts[name], s.stop + shifts[name]) for name, s in self.factor_slices.items()}

    @cached_property
    def condition_slices(self) -> dict[str, slice]:
        """Where each axis' one-hot sits in the condition."""
        slices, start = {}, 0
        for axis, elements in self.axes:
            slices[axis] = slice(start, start + len(elements))
            start += len(elements)
        return slices

    # The parts of a transition vector [s, a, r, s', done].
    @cached_property
    def state(self) -> slice:
        return slice(0, self.state_dim)

    @cached_property
    def action(self) -> slice:
        return slice(self.state_dim, self.state_dim + self.action_dim)

    @cached_property
    def reward(self) -> int:
        return self.state_dim + self.action_dim

    @cached_property
    def next_state(self) -> slice:
        return slice(self.reward + 1, self.reward + 1 + self.state_dim)

    @cached_property
    def states(self) -> tuple[slice, slice]:
        """s and s'."""
        return self.state, self.next_state

    @cached_property
    def terminal(self) -> int:
        return self.transition_dim - 1

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The factors of s, action, reward, the factors of s', terminal: 11 tokens for CompoSuite."""

        def state_tokens(prefix: str, offset: int) -> list[Token]:
            return [
                Token(f"{prefix}{f.name}", slice(offset + s.start, offset + s.stop), f.axis, f.name)
                for f in self.factors
                for s in [self.factor_slices[f.name]]
            ]

        return (
            *state_tokens("s_", 0),
            Token("action", self.action, None, "action"),
            Token("reward", slice(self.reward, self.reward + 1), None, "reward"),
            *state_tokens("next_", self.next_state.start),
            Token("terminal", slice(self.terminal, self.terminal + 1), None, "terminal"),
        )

    def split_ids(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut observations with ids (N, 93) into states (N, 77) and conditions (N, 16)."""
        ids = self.ids_slice
        states = np.concatenate([observations[..., : ids.start], observations[..., ids.stop :]], axis=-1)
        return states, observations[..., ids]

    def join_ids(self, states: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """Put a condition (16,) or (N, 16) into states (N, 77): the inverse of `split_ids`."""
        start = self.ids_slice.start
        ids = np.broadcast_to(condition, (*states.shape[:-1], self.condition_dim))
        return np.concatenate([states[..., :start], ids, states[..., start:]], axis=-1)
