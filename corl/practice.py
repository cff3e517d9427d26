"""Practice: the clone of a generated set acts in the simulator, and the generator says what it would do where it went.

This is DAgger (Ross et al. 2011) with the generator for an expert: no demonstration is used and no reward. A round
clones the rows so far, lets the members of the ensemble act in turn, and adds the states they saw with the generator's
expected actions; the states of episodes that ended solved keep the actions that were taken, which are real transitions.
Rounds are not monotone, so the set of the best round is kept, judged by these episodes alone.

A policy that copies its generator is hardly better than it. With `own_from` what is cloned, once so many episodes have
been solved, is what the solved ones did and nothing else (filtered behaviour cloning, as in self-imitation learning, Oh
et al. 2018): of what the generator does now and then the policy learns what led to success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corl.acting import Acting
from corl.bc import BC, BCConfig
from corl.evaluate import VectorEnvironment
from corl.policy import Policy
from corl.replay import ReplayData
from offline_compositional_rl_datasets.layout import FactoredLayout
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.transitions import Transitions
from runtime.checks import expect_range
from runtime.config import dict_without
from runtime.resumable import ResumableRun
from runtime.seeds import derive_seed

# label(states (N, S)) -> transitions (N, D): the states, and what the generator expects of them.
Label = Callable[[np.ndarray], np.ndarray]

ORIGINS = ("generated", "labelled", "practised")
"""Where a row comes from: the generator's set, a visited state with the generator's expectation, a solved episode."""
_LABELLED, _PRACTISED = ORIGINS.index("labelled"), ORIGINS.index("practised")


@dataclass(frozen=True)
class PracticeConfig:
    """`rounds` of `episodes` episodes each, 0: the published method, which does not practise.

    Practice ends early when the next round would exceed `control_steps` in the simulator, or when a round solved at
    least the share `enough` of its episodes. `noise` and `binary_hold` are how the policy acts (`Acting`).
    An ensemble of `members` is cloned with `first_steps` gradient steps before the first round and `steps` before each
    other one, `batch_size` rows each. Of states whose every number lies in the same interval of `spacing` standard
    deviations one is kept: where an arm is stuck it is the same for hundreds of steps. An episode ends when it has been
    solved for `linger` steps. As soon as `own_from` episodes have been solved, their transitions alone are cloned, by a
    new ensemble that later rounds go on with (0: never).
    """

    rounds: int = 0
    episodes: int = 16
    control_steps: int = 100_000
    enough: float = 1.0
    noise: float = 0.15
    binary_hold: int = 0
    members: int = 4
    hidden_dims: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    first_steps: int = 1500
    steps: int = 500
    batch_size: int = 512
    spacing: float = 0.05
    linger: int = 20
    own_from: int = 0

    def __post_init__(self) -> None:
        expect_range(self, "rounds", "noise", "binary_hold", "control_steps", "own_from")
        expect_range(
            self, "episodes", "members", "hidden_dims", "first_steps", "steps", "batch_size", "linger", least=1
        )
        expect_range(self, "learning_rate", "spacing", above=True)
        expect_range(self, "enough", most=1, above=True)

    def clones_own(self, before: Sequence[Round]) -> bool:
        """Whether the round after these clones solved episodes alone."""
        return 0 < self.own_from <= sum(r.solved for r in before)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a practised set. What is not used is not in it: older sets know nothing of it."""
        return dict_without(self, () if self.own_from else ("own_from",))

    @property
    def cloning(self) -> BCConfig:
        return BCConfig(learning_rate=self.learning_rate, members=self.members, hidden_dims=self.hidden_dims)


@dataclass(frozen=True)
class Round:
    """What the clone did: `solved` of `episodes`, in so many steps of the simulator.

    It learnt from the first `rows` rows, or from those of solved episodes among them (`PracticeConfig.clones_own`).
    """

    rows: int
    solved: int
    episodes: int
    control_steps: int


@dataclass(frozen=True)
class Practised:
    """The best round's set: matrix (N, D) float32, origin of each row (N,) as an index of `ORIGINS`, all rounds."""

    matrix: np.ndarray
    origins: np.ndarray
    rounds: tuple[Round, ...]

    @property
    def control_steps(self) -> int:
        return sum(r.control_steps for r in self.rounds)


def best_round(rounds: tuple[Round, ...]) -> int:
    """The round with the highest share of solved episodes; of equal ones the last, whose set has the most labels."""
    return max(range(len(rounds)), key=lambda k: (rounds[k].solved / rounds[k].episodes, k))


def spaced(states: np.ndarray, spacing: float) -> np.ndarray:
    """Indices, ascending, of the first of all rows of states (N, S) whose numbers round to the same multiples."""
    cells = np.round(states / spacing).astype(np.int64)
    return np.sort(np.unique(cells, axis=0, return_index=True)[1])


class Practice(ResumableRun):
    """Practice on one task, as a run of rounds that can be stopped between any two of them."""

    FORMAT = "practice 1"

    def __init__(
        self,
        start: Transitions,
        label: Label,
        transform: StateTransform,
        config: PracticeConfig,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        key: str | None = None,
    ) -> None:
        """`transform` is that of the generated set's own states, whatever is added, so that weights carry over."""
        super().__init__(folder, key=key, checkpoint_seconds=0.0)
        self.start, self.label, self.transform, self.config = start, label, transform, config
        self.layout, self.seed, self.device = transform.layout, seed, device
        self.matrix = start.to_matrix(self.layout, timeouts_as_terminals=False)
        self.origins = np.zeros(len(self.matrix), np.uint8)
        self.rounds: tuple[Round, ...] = ()
        self.learner = self._learner(self.config.first_steps)

    @property
    def step(self) -> int:
        """Rounds that are done."""
        return len(self.rounds)

    @property
    def finished(self) -> bool:
        if not self.rounds:
            return False
        last, spent = self.rounds[-1], sum(r.control_steps for r in self.rounds)
        longest = max(r.control_steps for r in self.rounds)
        enough = last.solved >= self.config.enough * last.episodes
        return enough or self.step > self.config.rounds or spent + longest > self.config.control_steps

    def state_dict(self) -> dict[str, Any]:
        given = len(self.start)
        return {
            "rounds": [[r.rows, r.solved, r.episodes, r.control_steps] for r in self.rounds],
            "matrix": torch.from_numpy(self.matrix[given:].copy()),
            "origins": torch.from_numpy(self.origins[given:].copy()),
            "actor": self.learner.modules["actor"].state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        given = len(self.start)
        self.matrix = np.concatenate([self.matrix[:given], state["matrix"].numpy()])
        self.origins = np.concatenate([self.origins[:given], state["origins"].numpy()])
        self.rounds = tuple(Round(*values) for values in state["rounds"])
        self._set_weights(state["actor"])

    def take_round(self, environment: VectorEnvironment) -> Round:
        """Clone the rows so far, act, and add what the next round has in addition."""
        rows = len(self.matrix)
        self._clone()
        visited = self._act(environment)
        failed = visited.of(solved=False)
        labels = self._labels(failed[:0] if self.config.clones_own(self.rounds) else failed)
        self.matrix = np.concatenate([self.matrix, labels, visited.real(self.layout)])
        own = len(self.matrix) - rows - len(labels)
        added = np.repeat([_LABELLED, _PRACTISED], [len(labels), own]).astype(np.uint8)
        self.origins = np.concatenate([self.origins, added])
        done = Round(rows, int(visited.solved.sum()), len(visited.solved), len(visited.transitions))
        self.rounds = (*self.rounds, done)
        return done

    def result(self) -> Practised:
        best = best_round(self.rounds)
        rows = self._rows(self.rounds[:best], self.rounds[best].rows)
        return Practised(self.matrix[rows], self.origins[rows], self.rounds)

    def _rows(self, before: Sequence[Round], count: int) -> np.ndarray | slice:
        """Which of the first `count` rows the round after these clones."""
        if self.config.clones_own(before):
            return np.flatnonzero(self.origins[:count] == _PRACTISED)
        return slice(count)

    def _learner(self, steps: int) -> BC:
        sizes = (self.layout.state_dim, self.layout.action_dim)
        seed = derive_seed("practice", self.seed, self.step)
        return BC.build(*sizes, self.config.cloning, seed=seed, device=self.device, max_steps=steps)

    def _set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        for module in self.learner.modules.values():
            module.load_state_dict(weights)

    def _clone(self) -> None:
        """Train the ensemble, from the weights of the round before if that cloned the same kind of rows."""
        own = self.config.clones_own(self.rounds)
        anew = not self.step or own != self.config.clones_own(self.rounds[:-1])
        steps = self.config.first_steps if anew else self.config.steps
        before = self.learner.modules["actor"].state_dict()
        self.learner = self._learner(steps)
        if not anew:
            self._set_weights(before)
        matrix = self.matrix[self._rows(self.rounds, len(self.matrix))]
        rows = Transitions.from_matrix(matrix, self.start.task, self.layout)
        data = ReplayData(rows, self.transform, self.device, timeouts_as_terminals=False)
        generator = torch.Generator(self.device).manual_seed(derive_seed("practice rows", self.seed, self.step))
        for _ in range(steps):
            shape = (self.config.batch_size,)
            chosen = torch.randint(len(data), shape, generator=generator, device=self.device)
            self.learner.update(data.batch(chosen))

    def _act(self, environment: VectorEnvironment) -> Visited:
        config = self.config
        acting = Acting(config.noise, config.binary_hold, self.layout.binary_actions)
        policy = Policy(self.learner.actor, self.transform, self.device, acting=acting)
        parts = []
        for start in range(0, config.episodes, environment.num_envs):
            numbers = np.arange(start, min(start + environment.num_envs, config.episodes))
            seeds = [derive_seed("practice", self.seed, self.step, int(number)) for number in numbers]
            parts.append(_roll_out(policy, environment, seeds, numbers % config.members, config))
        return Visited.concatenate(parts)

    def _labels(self, states: np.ndarray) -> np.ndarray:
        """(L, D) what the generator expects of the states, of those that are alike one."""
        if not len(states):
            return np.empty((0, self.layout.transition_dim), np.float32)
        mean, std = self.transform.mean, self.transform.std
        return self.label(states[spaced((states - mean) / std, self.config.spacing)])


@dataclass(frozen=True)
class Visited:
    """All steps of some episodes, which episode each is of (R,), and which of them ended solved (K,)."""

    transitions: Transitions
    episodes: np.ndarray
    solved: np.ndarray

    @classmethod
    def concatenate(cls, parts: list[Visited]) -> Visited:
        firsts = np.cumsum([0, *(len(part.solved) for part in parts)])
        return cls(
            Transitions.concatenate([part.transitions for part in parts]),
            np.concatenate([part.episodes + first for part, first in zip(parts, firsts, strict=False)]),
            np.concatenate([part.solved for part in parts]),
        )

    def of(self, *, solved: bool) -> np.ndarray:
        """(R', S) the states of the episodes that were solved, or of the others."""
        states: np.ndarray = self.transitions.states[self.solved[self.episodes] == solved]
        return states

    def real(self, layout: FactoredLayout) -> np.ndarray:
        """(R', D) the transitions of solved episodes."""
        return self.transitions.take(self.solved[self.episodes]).to_matrix(layout, timeouts_as_terminals=False)


def _roll_out(
    policy: Policy, environment: VectorEnvironment, seeds: list[int], members: np.ndarray, config: PracticeConfig
) -> Visited:
    """One episode per seed, each by its member of the policy's ensemble, with noise."""
    count = len(seeds)
    states, variation = environment.reset(seeds), policy.acting.begin(seeds)
    running, solved_for, solved = np.ones(count, bool), np.zeros(count, int), np.zeros(count, bool)
    columns: list[tuple[np.ndarray, ...]] = []
    while running.any():
        actions = variation.on(policy.each(states)[members, np.arange(count)])
        next_states, rewards, terminated, truncated, success = environment.step(actions)
        step = (states, actions, rewards, next_states, terminated, truncated, np.arange(count))
        columns.append(tuple(column[running] for column in step))
        solved[running] = success[running]
        solved_for = np.where(success, solved_for + 1, 0)
        running &= ~(terminated | truncated) & (solved_for < config.linger)
        states = next_states
    *floats, terminals, timeouts, episodes = (np.concatenate(column) for column in zip(*columns, strict=True))
    states, actions, rewards, next_states = (array.astype(np.float32) for array in floats)
    return Visited(Transitions(states, actions, rewards, next_states, terminals, timeouts), episodes, solved)
