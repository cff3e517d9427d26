"""Runs of an expert or of a worse policy, disturbed on purpose, and cut into episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from envs.disturbance import Disturbance
from envs.family import family_of
from envs.pool import EnvPool
from offline_compositional_rl_datasets.hdf5 import Episode
from offline_compositional_rl_datasets.task import Task
from runtime.checks import expect_range
from runtime.errors import ConfigError
from runtime.seeds import derive_seed, rng

_LEAST_SHOVE = 4
_BURST_STEPS = 10  # a random action is held so long: white noise would hardly move the arm
_SLIP_STEPS = 12
_GRIP_STEPS = 10  # an object slips only while it is being gripped,
_ATTEMPTS = 6  # at a run that must end solved
_MOST_SLIPS = 3  # and so many times a run
_NUDGE = 0.6  # the arm's greatest command during a slip
_BELOW_CEILING = 0.012  # no shove lifts an object that is so near to where the episode would end (m)
_LIFTED = 0.01  # an object less far above its first place rests (m)


@dataclass(frozen=True)
class CollectConfig:
    """How many runs of which length, and how far the expert is thrown off its path in them.

    `episodes` runs per task of `horizon` control steps. `noise` is the standard deviation of what is added to every
    action before clipping. About every `shove_every` steps (0: never) the arm is shoved: all joints move at a random
    speed for 4 to `shove_steps` steps that are not recorded, and what follows is recorded as an episode of its own. So
    the data shows how to come back from everywhere, with clean actions; that is what makes it clonable. Where the
    expert grips an object that still rests on its place, `slip` is the chance per step that the gripper opens and
    the arm moves a little instead, not recorded either: an expert closes within a few steps, too few to learn from
    that open fingers about an object must close. With the chance `fumble` a shove takes the gripper too, which then
    does the opposite of what the expert asks: the hand closes about nothing, or drops what it carries. Without that
    the data has no empty hand on the way to the goal, and a clone that has lost its object goes on as if it held
    it. Once it has been solved in `linger` steps a run is over; PickPlace and Push take two and a half times as
    many: their objects are held at the goal for good, and a clone that has seen little of that glides past the spot
    of Push, or opens its fingers over the edge of the bin. With `solved_only` a run that does not end solved is
    made again: of an object that fell out of reach there is nothing to learn.

    `random_share` makes worse policies of the expert: the share of its time that it acts at random (uniformly, each
    action held for 10 steps), from the first run's to the last one's.
    """

    episodes: int = 20
    horizon: int = 500
    noise: float = 0.03
    shove_every: int = 50
    shove_steps: int = 14
    slip: float = 0.3
    fumble: float = 0.0
    solved_only: bool = False
    linger: int = 60
    seed: int = 0
    random_share: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        expect_range(self, "episodes", "horizon", "linger", least=1)
        expect_range(self, "noise", "shove_every")
        expect_range(self, "shove_steps", least=_LEAST_SHOVE)
        expect_range(self, "slip", most=1, below=True)
        expect_range(self, "fumble", most=1)
        expect_range(self, "random_share", most=1)
        if len(self.random_share) != 2:
            raise ConfigError(f"random_share {self.random_share}: expected two shares from 0 to 1")

    def share_of(self, number: int) -> float:
        """The share of random actions in run `number`."""
        first, last = self.random_share
        return first + (last - first) * number / max(1, self.episodes - 1)


@dataclass(frozen=True)
class Rollout:
    """One run of the expert: its recorded episodes, the return of all its steps, success at the last one."""

    episodes: list[Episode]
    total_reward: float
    success: bool


class _Recorder:
    """Decides step by step whether a run records or shoves, and cuts it into episodes."""

    def __init__(
        self, config: CollectConfig, generator: np.random.Generator, task: Disturbance, random_share: float = 0.0
    ) -> None:
        self.config, self.generator, self.task, self.random_share = config, generator, task, random_share
        self._arm = np.array([i for i in range(task.action_dim) if i not in task.grip])
        self.episodes: list[Episode] = []
        self.total_reward = 0.0
        self._steps: list[tuple[np.ndarray, np.ndarray, float, bool]] = []
        self._shove_left = 0
        self._shove = np.zeros(task.action_dim)
        self._free = np.zeros(task.action_dim, dtype=bool)  # commands that a shove leaves to the expert
        self._rest_height: np.floating | None = None
        self._gripping = 0
        self._slips = 0
        self._fumbles = False
        self._record_left = self._draw_length()
        self._burst_left = 0
        self._burst: np.ndarray | None = None
        self.solved_for = 0
        self.success = False

    def _draw_length(self) -> int:
        """Steps until the next shove: uniform around `shove_every`."""
        every = self.config.shove_every
        return int(self.generator.integers(every // 2, every + every // 2 + 1)) if every else self.config.horizon

    def action(self, state: np.ndarray, expert_action: np.ndarray) -> np.ndarray:
        """(8,) float32: the expert's action with noise, or a shove."""
        if self.random_share:
            expert_action = self._worse(expert_action)
        noisy = expert_action + self.config.noise * self.generator.standard_normal(self.task.action_dim)
        if self.task.height is not None:
            self._let_slip(state[self.task.height], expert_action)
        if self._shove_left:
            noisy = np.where(self._free, -noisy if self._fumbles else noisy, self._shove)
        return np.clip(noisy, -1.0, 1.0).astype(np.float32)

    def _let_slip(self, height: np.floating, expert_action: np.ndarray) -> None:
        if self._rest_height is None:
            self._rest_height = height
        grips = (expert_action[list(self.task.grip)] > 0).any() and height < self._rest_height + _LIFTED
        self._gripping = self._gripping + 1 if grips and not self._shove_left else 0
        may_slip = 1 < self._gripping <= _GRIP_STEPS and self._slips < _MOST_SLIPS
        if may_slip and self.generator.random() < self.config.slip:
            self._slips += 1
            self.close()
            self._start_shove(_SLIP_STEPS, _NUDGE, -1.0)
        if height > self.task.ceiling - _BELOW_CEILING:
            self._shove_left = 0

    def _worse(self, expert_action: np.ndarray) -> np.ndarray:
        """The expert's action, or for a burst of steps a random one."""
        if not self._burst_left:
            self._burst_left = _BURST_STEPS
            random = self.generator.random() < self.random_share
            self._burst = self.generator.uniform(-1.0, 1.0, self.task.action_dim) if random else None
        self._burst_left -= 1
        return expert_action if self._burst is None else self._burst

    def _start_shove(self, longest: int, most: float, grip: float) -> None:
        """Random commands up to `most` in place of the expert's for 4 to `longest` steps.

        The gripper's command is `grip`, that of the expert where it is NaN.
        """
        self._shove = np.full(self.task.action_dim, grip)
        self._shove[self._arm] = self.generator.uniform(-most, most, len(self._arm))
        self._shove_left = int(self.generator.integers(_LEAST_SHOVE, longest + 1))
        self._free = np.isnan(self._shove)
        self._fumbles = bool(self.config.fumble) and self.generator.random() < self.config.fumble

    def add(self, state: np.ndarray, action: np.ndarray, reward: float, success: bool, terminated: bool) -> None:
        self.total_reward += reward
        self.success = success
        self.solved_for += success
        if self._shove_left:
            self._shove_left -= 1
            return
        self._steps.append((state, action, reward, success))
        self._record_left -= 1
        if terminated:
            self.close(terminated=True)
        elif self._record_left <= 0:
            self.close()
            self._record_left = self._draw_length()
            self._start_shove(self.config.shove_steps, 1.0, np.nan)

    def close(self, *, terminated: bool = False) -> None:
        """End the episode under way; one of a single step would hold no transition."""
        if len(self._steps) > 1:
            states, actions, rewards, successes = (
                np.array(column, dtype=np.float32) for column in zip(*self._steps, strict=True)
            )
            self.episodes.append(Episode(states, actions, rewards, successes, terminated=terminated))
        self._steps = []


def record(
    task: Task, config: CollectConfig, numbers: Sequence[int], expert: Callable[[np.ndarray], np.ndarray]
) -> list[Rollout]:
    """Run the expert side by side; a run's start, noise and shoves depend on its number alone.

    With `solved_only` a run that does not end solved is made again from other starts; one that is not solved in
    `_ATTEMPTS` has no episodes.
    """
    rollouts = _record(task, config, [(number,) for number in numbers], expert)
    for attempt in range(1, _ATTEMPTS if config.solved_only else 1):
        lost = [i for i, rollout in enumerate(rollouts) if not rollout.success]
        again = _record(task, config, [(numbers[i], attempt) for i in lost], expert) if lost else []
        for i, rollout in zip(lost, again, strict=True):
            rollouts[i] = rollout
    if config.solved_only:
        rollouts = [rollout if rollout.success else replace(rollout, episodes=[]) for rollout in rollouts]
    return rollouts


def _record(
    task: Task, config: CollectConfig, runs: Sequence[tuple[int, ...]], expert: Callable[[np.ndarray], np.ndarray]
) -> list[Rollout]:
    """Runs named by their number and, from the second on, their attempt."""
    group = EnvPool(task, len(runs), horizon=config.horizon)
    disturbance = family_of(task).disturbance(task)
    recorders = [
        _Recorder(config, rng("noise", config.seed, task.name, *run), disturbance, config.share_of(run[0]))
        for run in runs
    ]
    linger = config.linger * disturbance.linger
    states = group.reset([derive_seed("start", config.seed, task.name, *run) for run in runs])
    ended = np.zeros(len(runs), dtype=bool)
    while not ended.all():
        wanted = expert(states)
        actions = np.stack([recorder.action(*seen) for recorder, *seen in zip(recorders, states, wanted, strict=True)])
        next_states, rewards, terminated, truncated, successes = group.step(actions)
        for i in np.flatnonzero(~ended):
            recorders[i].add(states[i], actions[i], rewards[i], successes[i], bool(terminated[i]))
        over = np.array([recorder.success and recorder.solved_for >= linger for recorder in recorders])
        ended |= terminated | truncated | over
        states = next_states
    for recorder in recorders:
        recorder.close()
    return [Rollout(recorder.episodes, recorder.total_reward, recorder.success) for recorder in recorders]
