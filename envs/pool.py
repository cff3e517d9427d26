"""Environments of one task spread over worker processes, one batched call per control step."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from envs.making import AnyTask, make

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]

UNSEEDED = -1
"""In place of a seed: the environment draws one itself."""

_SECONDS_TO_CLOSE = 5


class WorkerError(RuntimeError):
    """A process with environments ended before its time."""


class _Group:
    """Environments stepped one after the other in this process."""

    def __init__(self, task: AnyTask, count: int, options: dict[str, Any]) -> None:
        self.environments = [make(task, **options) for _ in range(count)]
        self._last: list[tuple[np.ndarray, bool, bool, dict[str, Any]]] = []

    def spaces(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        return self.environments[0].observation_space, self.environments[0].action_space

    def reset(self, seeds: Sequence[int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        self._last = [self._start(env, seed) for env, seed in zip(self.environments, seeds, strict=False)]
        return self._seen()

    def restart(self, seeds: Sequence[int | None]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        for i, (env, seed) in enumerate(zip(self.environments, seeds, strict=False)):
            if seed is not None:
                self._last[i] = self._start(env, seed)
        return self._seen()

    def step(
        self, actions: np.ndarray, seeds: Sequence[int | None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        rewards = np.zeros(len(self._last))
        for i, (env, action, seed) in enumerate(zip(self.environments, actions, seeds, strict=False)):
            _, terminated, truncated, _ = self._last[i]
            if seed is not None:
                self._last[i] = self._start(env, seed)
            elif not (terminated or truncated):
                observation, rewards[i], *rest = env.step(action)
                self._last[i] = (observation, *rest)
        observations, terminated, truncated, infos = zip(*self._last, strict=True)
        return np.stack(observations), rewards, np.array(terminated), np.array(truncated), list(infos)

    def seeds(self, count: int) -> list[int]:
        return [env.np_random_seed for env in self.environments[:count]]

    def render(self, count: int) -> list[np.ndarray]:
        return [env.render() for env in self.environments[:count]]

    def close(self) -> None:
        for env in self.environments:
            env.close()

    @staticmethod
    def _start(env: gymnasium.Env, seed: int) -> tuple[np.ndarray, bool, bool, dict[str, Any]]:
        observation, info = env.reset(seed=None if seed == UNSEEDED else int(seed))
        return observation, False, False, info

    def _seen(self) -> tuple[np.ndarray, list[dict[str, Any]]]:
        return np.stack([last[0] for last in self._last]), [last[3] for last in self._last]


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    """A worker: makes ("task", task, count) and answers calls of `_Group`'s methods until the pipe is closed.

    It ends with its parent, not at a signal that all processes get: the parent needs it to save where it is.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    group: _Group | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            command, *arguments = pipe.recv()
            try:
                if command == "task":
                    task, count = arguments
                    group = _Group(task, count, options)
                    answer = group.spaces()
                else:
                    answer = getattr(group, command)(*arguments)
                pipe.send((True, answer))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                pipe.send((False, (_that_travels(error), traceback.format_exc())))


def _that_travels(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class EnvPool:
    """`num_envs` environments of one task over `workers` processes (0: in this process), run as seeded episodes.

    A batch has B <= `num_envs` episodes: as many as the last `reset` had seeds. An ended episode stays at its last
    observation, with reward 0, until `reset` or `restart`. `infos` is what each environment told last. `assign` moves
    the same processes to another task, which is much faster than starting new ones. To be used as a context manager.
    Options are those of `CompoSuiteEnv` or `RobomimicEnv`.

    Methods raise `ValueError` for a batch of another size, `gymnasium.error.ResetNeeded` before `reset` (and after an
    error), `gymnasium.error.ClosedEnvironmentError` after `close`, and `WorkerError` where a worker was killed.
    `gymnasium.vector.VectorEnv`'s interface to the same: `envs.vector`.
    """

    def __init__(self, task: AnyTask, num_envs: int, *, workers: int = 0, **options: Any) -> None:
        if num_envs < 1 or workers < 0:
            raise ValueError(f"num_envs {num_envs}, workers {workers}: expected at least 1 and 0")
        self.num_envs, self.closed = num_envs, False
        self._options = options
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._group: _Group | None = None
        self._batch = 0  # 0: no episodes are under way
        # Spawned, not forked: the parent may hold threads of torch.
        context = multiprocessing.get_context("spawn")
        for _ in range(min(workers, num_envs)):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, options), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        self.assign(task)

    def assign(self, task: AnyTask) -> None:
        """Replace all environments by those of `task`."""
        self._expect_open()
        self.task, self._batch = task, 0
        self.infos: list[dict[str, Any]] = []
        try:
            if self._processes:
                counts = np.diff(self._split(self.num_envs))
                spaces = self._exchange([("task", task, int(count)) for count in counts])[0]
            else:
                self._group = _Group(task, self.num_envs, self._options)
                spaces = self._group.spaces()
        except BaseException:
            self.close()
            raise
        self.single_observation_space, self.single_action_space = spaces

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Start one episode per seed (1 to `num_envs`, or `UNSEEDED`); (B, S) float32."""
        self._expect_open()
        if not 0 < len(seeds) <= self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments, expected 1 to {self.num_envs}")
        self._batch = len(seeds)
        return self._started("reset", seeds)

    def restart(self, seeds: Sequence[int | None]) -> np.ndarray:
        """Start a new episode in the environments with a seed, leave those with None as they are; (B, S) float32."""
        self._expect_started()
        self._expect_batch(len(seeds), "seeds")
        return self._started("restart", seeds)

    def _started(self, command: str, seeds: Sequence[int | None]) -> np.ndarray:
        parts = self._call(command, [None if seed is None else int(seed) for seed in seeds])
        self.infos = [info for part in parts for info in part[1]]
        return np.concatenate([part[0] for part in parts])

    def step(self, actions: np.ndarray, seeds: Sequence[int | None] | None = None) -> Step:
        """actions (B, A) -> observations (B, S) float32, rewards (B,), terminated, truncated, successes (B,) bool.

        An environment with a seed in `seeds` (B,) starts a new episode in place of its step, with reward 0.
        """
        self._expect_started()
        actions = np.asarray(actions)
        expected = (self._batch, *self.single_action_space.shape)
        if actions.shape != expected:
            raise ValueError(f"{self.task}: actions of shape {actions.shape}, expected {expected}")
        if not np.isfinite(actions).all():
            first = int(np.argwhere(~np.isfinite(actions))[0][0])
            raise ValueError(f"{self.task}: action {first} of the batch, {actions[first]}, is not finite")
        seeds = [None] * self._batch if seeds is None else list(seeds)
        self._expect_batch(len(seeds), "seeds")
        parts = self._call("step", actions, seeds)
        self.infos = [info for part in parts for info in part[4]]
        observations, rewards, terminated, truncated = (
            np.concatenate(column) for column in list(zip(*parts, strict=True))[:4]
        )
        return observations, rewards, terminated, truncated, np.array([info["success"] for info in self.infos])

    def seeds(self) -> list[int]:
        """(B,) of the present episodes."""
        self._expect_started()
        return [seed for part in self._call("seeds") for seed in part]

    def render(self) -> list[np.ndarray]:
        """A picture of each of the B episodes, (height, width, 3) uint8."""
        self._expect_started()
        return [picture for part in self._call("render") for picture in part]

    def _expect_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("the environments were closed, make new ones")

    def _expect_started(self) -> None:
        self._expect_open()
        if not self._batch:
            raise gymnasium.error.ResetNeeded(f"{self.task}: no episodes are under way, call reset() first")

    def _expect_batch(self, count: int, what: str) -> None:
        if count != self._batch:
            raise ValueError(f"{self.task}: {count} {what}, expected {self._batch}, one per episode under way")

    def _split(self, count: int) -> list[int]:
        """Bounds of the workers' contiguous blocks of a batch: worker w has [w]:[w + 1].

        Blocks differ by one at most, the larger ones first, so that a short batch needs no more of any worker than the
        full one.
        """
        share, rest = divmod(count, len(self._pipes))
        return [w * share + min(w, rest) for w in range(len(self._pipes) + 1)]

    def _call(self, command: str, *batches: Any) -> list[Any]:
        """Call a method of `_Group` with each worker's part of the batches, or with the size of its part."""
        with self._to_be_reset_after_an_error():
            if self._group is not None:
                return [getattr(self._group, command)(*(batches or (self._batch,)))]
            cuts = self._split(self._batch)
            messages = [
                (command, *(batch[start:stop] for batch in batches)) if batches else (command, stop - start)
                for start, stop in itertools.pairwise(cuts)
                if stop > start
            ]
            return self._exchange(messages)

    @contextlib.contextmanager
    def _to_be_reset_after_an_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._batch = 0
            raise

    def _exchange(self, messages: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send the first workers a message each, and gather all their answers before an error of one is raised."""
        answered = False
        try:
            for w, message in enumerate(messages):
                with self._told_of_its_end(w):
                    self._pipes[w].send(message)
            answers = []
            for w in range(len(messages)):
                with self._told_of_its_end(w):
                    answers.append(self._pipes[w].recv())
            answered = True
        finally:
            if not answered:  # an answer that came later would be taken for that to another call
                self.close()
        for good, answer in answers:
            if not good:
                error, trace = answer
                raise error from RuntimeError(f"in a worker process:\n{trace}")
        return [answer for _, answer in answers]

    @contextlib.contextmanager
    def _told_of_its_end(self, worker: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            process = self._processes[worker]
            process.join(timeout=_SECONDS_TO_CLOSE)
            raise WorkerError(
                f"{self.task}: worker {worker + 1} of {len(self._processes)} ended early ({_fate(process.exitcode)}); "
                "its episodes are lost"
            ) from error

    def close(self) -> None:
        """End the workers; may be called more than once."""
        self.closed = True
        if self._group is not None:
            self._group.close()
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=_SECONDS_TO_CLOSE)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []

    def __enter__(self) -> EnvPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._processes:
            raise TypeError(
                f"{len(self._processes)} worker processes hold the environments: only environments in this process "
                "(workers=0) can be copied or pickled"
            )
        return self.__dict__


def _fate(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
    return f"exit status {exit_code}"
