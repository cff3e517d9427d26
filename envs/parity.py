"""Replay recorded traces of the original simulator and compare every step.

Two tests. One step at a time: before each step put in the recorded state, so that errors do not add up; at least 99 %
of the steps must agree to 1e-6 in qpos, observation and reward. Open loop: replay all actions from the start and agree
up to the step at which a shift of 1e-13 rad in the start pose would change qpos by 1e-6 (contact is chaotic).

Observations are compared as they are, with their signs. One exception: a step's relative quaternion with |w| <= 1e-6 is
compared up to its sign, since the recorded simulator takes that sign from w rounded to float32. The first observation
has no exception.

Example: python -m envs.parity traces/*.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.composuite.env import CompoSuiteEnv
from envs.composuite.simulation import ACTION_DIM
from offline_compositional_rl_datasets.composuite import AXES, COMPOSUITE, CompoSuiteTask
from runtime.errors import DataError
from runtime.main import run_main
from runtime.npz import FLAGS, TEXT, read_npz

TOLERANCE = 1e-6
REQUIRED_FRACTION = 0.99
CHAOS_SHIFT = 1e-13
_MOVABLE = 9  # arm and finger positions, which lead qpos

_STATES = ("init_qpos", "init_qvel", "init_mass_matrix", "init_obs", "actions", "obs", "qpos", "qvel", "ctrl")
_ARRAYS = {"task": TEXT} | dict.fromkeys((*_STATES, "reward", "success", "warmstart", "gripper_state", "seed"), FLAGS)
_W = 3  # of a quaternion (x, y, z, w)


@dataclass(frozen=True)
class Trace:
    """A recorded episode of N steps: start, actions (N, 8) and what each step gave."""

    task: CompoSuiteTask
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["actions"])

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]


def load_trace(path: Path) -> Trace:
    """Read and check a trace file. Raises `DataError` where it is missing, damaged or of another format."""
    arrays = read_npz(path, _ARRAYS)
    steps = arrays["actions"].shape[:1]
    if arrays["task"].shape != (len(AXES),):
        raise DataError(f"{path}: task has shape {arrays['task'].shape}, expected ({len(AXES)},), a name per axis")
    for key in ("reward", "success", "qpos", "qvel", "warmstart", "gripper_state"):
        if arrays[key].shape[:1] != steps:
            raise DataError(f"{path}: {key} has {arrays[key].shape[:1]} steps, expected {steps}, as many as actions")
    for key, shape in (("actions", (*steps, ACTION_DIM)), ("obs", (*steps, COMPOSUITE.observation_dim))):
        if arrays[key].shape != shape:
            raise DataError(f"{path}: {key} has shape {arrays[key].shape}, expected {shape}")
    return Trace(CompoSuiteTask(*(str(part) for part in arrays["task"])), arrays)


@dataclass(frozen=True)
class Outcome:
    """What one control step gave."""

    qpos: np.ndarray
    observation: np.ndarray
    reward: float
    success: bool
    ends: bool


@dataclass(frozen=True)
class Errors:
    """Largest differences of a step to the record; success must be equal."""

    qpos: float
    observation: float
    reward: float
    success: bool

    @property
    def agrees(self) -> bool:
        # Each by itself: a maximum would hide not-a-number.
        return all(e <= TOLERANCE for e in (self.qpos, self.observation, self.reward)) and self.success


LOST = Errors(qpos=np.inf, observation=np.inf, reward=np.inf, success=False)
"""Of a step that there was not."""


class Replay:
    """An environment that is put into recorded states and stepped."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.env = CompoSuiteEnv(trace.task, ignore_done=True)

    def _step(self, action: np.ndarray) -> Outcome:
        env = self.env
        _, reward, terminated, _, info = env.step(action)
        return Outcome(env.simulation.data.qpos.copy(), env.full_observation(), reward, info["success"], terminated)

    def _start(self, shift: float = 0.0) -> None:
        qpos = self.trace["init_qpos"].copy()
        qpos[:_MOVABLE] += shift
        self.env.reset_to(qpos, self.trace["init_qvel"], first_mass=self.trace["init_mass_matrix"])

    def start_error(self) -> float:
        """Largest difference of the first observation (77,), in which every sign counts."""
        self._start()
        recorded, _ = COMPOSUITE.split_ids(self.trace["init_obs"])
        return float(np.abs(self.env.full_observation() - recorded).max())

    def one_step(self) -> list[Errors]:
        trace, errors = self.trace, []
        for k, action in enumerate(trace["actions"]):
            if k == 0:
                self._start()
            else:
                self.env.reset_to(
                    trace["qpos"][k - 1],
                    trace["qvel"][k - 1],
                    warmstart=trace["warmstart"][k - 1],
                    gripper=trace["gripper_state"][k - 1],
                )
            errors.append(self._compare(self._step(action), k))
        return errors

    def open_loop(self) -> list[Errors]:
        """A trace's steps are all those of one episode: where this one ends before, nothing after agrees."""
        self._start()
        errors = [LOST] * len(self.trace)
        for k, action in enumerate(self.trace["actions"]):
            outcome = self._step(action)
            errors[k] = self._compare(outcome, k)
            if outcome.ends:
                break
        return errors

    def meaningful_steps(self) -> int:
        """Steps until a shift of 1e-13 in the start pose has changed an entry of qpos by more than 1e-6."""

        def trajectory(shift: float) -> np.ndarray:
            self._start(shift)
            qpos = np.full((len(self.trace), len(self.trace["init_qpos"])), np.inf)
            for k, action in enumerate(self.trace["actions"]):
                outcome = self._step(action)
                qpos[k] = outcome.qpos
                if outcome.ends:
                    break
            return qpos

        with np.errstate(invalid="ignore"):  # both have ended
            apart = np.abs(trajectory(CHAOS_SHIFT) - trajectory(0.0)).max(axis=1) > TOLERANCE
        return int(apart.argmax()) if apart.any() else len(apart)

    def _compare(self, outcome: Outcome, k: int) -> Errors:
        trace = self.trace
        return Errors(
            qpos=float(np.abs(outcome.qpos - trace["qpos"][k]).max()),
            observation=_observation_error(outcome.observation, trace["obs"][k]),
            reward=abs(outcome.reward - float(trace["reward"][k])),
            success=bool(outcome.success) == bool(trace["success"][k]),
        )


def _observation_error(state: np.ndarray, recorded: np.ndarray) -> float:
    """Largest difference of (77,) to the recorded (93,); relative quaternions at a half turn up to sign."""
    recorded, _ = COMPOSUITE.split_ids(recorded)
    difference = np.abs(state - recorded)
    for part in COMPOSUITE.relative_quaternions:
        if max(abs(state[part][_W]), abs(recorded[part][_W])) <= TOLERANCE:
            difference[part] = np.minimum(difference[part].max(), np.abs(state[part] + recorded[part]).max())
    return float(difference.max())


@dataclass(frozen=True)
class Report:
    """The verdict on one trace."""

    name: str
    one_step: list[Errors]
    open_loop: list[Errors]
    meaningful: int
    start: float

    @property
    def exceptions(self) -> list[int]:
        return [k for k, error in enumerate(self.one_step) if not error.agrees]

    @property
    def first_divergence(self) -> int:
        """Steps of the open loop that agree before the first that does not."""
        return next((k for k, error in enumerate(self.open_loop) if not error.agrees), len(self.open_loop))

    @property
    def passes(self) -> bool:
        enough = len(self.exceptions) <= (1 - REQUIRED_FRACTION) * len(self.one_step)
        return enough and self.first_divergence >= self.meaningful and self.start <= TOLERANCE


def examine(path: Path) -> Report:
    """Run both tests on one trace file."""
    replay = Replay(load_trace(path))
    return Report(
        name=path.stem,
        one_step=replay.one_step(),
        open_loop=replay.open_loop(),
        meaningful=replay.meaningful_steps(),
        start=replay.start_error(),
    )


def _row(report: Report) -> str:
    steps = len(report.one_step)
    good = steps - len(report.exceptions)
    worst = [np.max([getattr(e, key) for e in report.one_step]) for key in ("qpos", "observation", "reward")]
    verdict = "pass" if report.passes else "MISS"
    return (
        f"{report.name:<38} {good:>4}/{steps:<4} {worst[0]:8.1e} {worst[1]:8.1e} {worst[2]:8.1e} "
        f"{report.first_divergence:>6} {report.meaningful:>6}  {verdict}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npz", help="recorded traces")
    files = parser.parse_args(argv).files
    print(f"{'':<38} one step at a time, worst difference      open loop")
    print(f"{'trace':<38} {'agree':<9} {'qpos':>8} {'obs':>8} {'reward':>8} {'agrees':>6} {'needed':>6}")
    reports = []
    for path in files:
        report = examine(path)
        reports.append(report)
        print(_row(report), flush=True)
        for k in report.exceptions:
            error = report.one_step[k]
            print(
                f"    step {k}: qpos {error.qpos:.1e}, observation {error.observation:.1e}, "
                f"reward {error.reward:.1e}, success {'equal' if error.success else 'differs'}"
            )
    missed = [report.name for report in reports if not report.passes]
    print(
        f"{len(reports) - len(missed)} of {len(reports)} traces pass"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    run_main(main)
