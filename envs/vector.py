"""Many episodes at once: environments spread over worker processes, one batched call per control step."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from envs.robomimic_task import RobomimicTask
from offline_compositional_rl_datasets.task import Task

Step = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class EnvGroup:
    """Environments of one task stepped one after the other in this process."""

    def __init__(self, task: Task | RobomimicTask, count: int, options: dict[str, Any]) -> None:
        import envs

        self.environments = [envs.make(task, **options) for _ in range(count)]
        self._last: list[tuple[np.ndarray, bool, bool, bool]] = []

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """(B, S) float32; fewer seeds than environments leave the rest idle."""
        active = self.environments[: len(seeds)]
        observations = [env.reset(seed=int(seed))[0] for env, seed in zip(active, seeds, strict=True)]
        self._last = [(observation, False, False, False) for observation in observations]
        return np.stack(observations) if observations else np.empty((0, 0), np.float32)

    def restart(self, seeds: Sequence[int | None]) -> np.ndarray:
        """Start a new episode where there is a seed, go on where there is None; the observations (B, S) of all."""
        for i, (env, seed) in enumerate(zip(self.environments, seeds, strict=False)):
            if seed is not None:
                self._last[i] = (env.reset(seed=int(seed))[0], False, False, False)
        return np.stack([last[0] for last in self._last])

    def step(self, actions: np.ndarray) -> Step:
        """An ended episode stays at its last observation with reward 0 until `reset`."""
        rewards = np.zeros(len(self._last))
        for i, (env, action) in enumerate(zip(self.environments, actions, strict=False)):
            _, terminated, truncated, _ = self._last[i]
            if terminated or truncated:
                continue
            observation, rewards[i], terminated, truncated, info = env.step(action)
            self._last[i] = (observation, terminated, truncated, info["success"])
        observations, terminated, truncated, successes = zip(*self._last, strict=True)
        return np.stack(observations), rewards, np.array(terminated), np.array(truncated), np.array(successes)


def _serve(pipe: Connection, options: dict[str, Any]) -> None:
    """A worker: answers ("task", task, count), ("reset" or "restart", seeds), ("step", actions) until it closes."""
    group: EnvGroup | None = None
    with contextlib.suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            command, *arguments = pipe.recv()
            try:
                if command == "task":
                    group = EnvGroup(arguments[0], arguments[1], options)
                    answer = None
                else:
                    answer = getattr(group, command)(*arguments)
                pipe.send((True, answer))
            except Exception:
                pipe.send((False, traceback.format_exc()))


class VectorEnv:
    """`num_envs` environments of one task over `workers` processes (0: in this process).

    Episodes are not restarted by themselves. `assign` moves the same processes to another task, which is much faster
    than starting new ones. To be used as a context manager. Options are those of `CompoSuiteEnv`
    or `RobomimicEnv`.
    """

    def __init__(self, task: Task | RobomimicTask, num_envs: int, *, workers: int = 0, **options: Any) -> None:
        if num_envs < 1 or workers < 0:
            raise ValueError(f"num_envs {num_envs}, workers {workers}: expected at least 1 and 0")
        self.num_envs = num_envs
        self._options = options
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._group: EnvGroup | None = None
        workers = min(workers, num_envs)
        # Spawned, not forked: the parent may hold threads of torch.
        context = multiprocessing.get_context("spawn")
        for _ in range(workers):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, options), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        self.assign(task)

    def assign(self, task: Task | RobomimicTask) -> None:
        """Replace all environments by those of `task`."""
        self.task = task
        if not self._pipes:
            self._group = EnvGroup(task, self.num_envs, self._options)
            return
        for pipe, count in zip(self._pipes, np.diff(self._split(self.num_envs)), strict=True):
            pipe.send(("task", task, int(count)))
        self._answers(self._pipes)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Start one episode per seed (at most `num_envs`); (B, 77) float32."""
        if not 0 < len(seeds) <= self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        if self._group is not None:
            self._cuts = []
            return self._group.reset(seeds)
        self._cuts = self._split(len(seeds))
        return np.concatenate(self._broadcast("reset", list(seeds)))

    def restart(self, seeds: Sequence[int | None]) -> np.ndarray:
        """Start a new episode in the environments with a seed, leave those with None as they are; (B, 77) float32.

        As many entries as the last `reset` had seeds.
        """
        if self._group is not None:
            return self._group.restart(seeds)
        return np.concatenate(self._broadcast("restart", list(seeds)))

    def _split(self, count: int) -> list[int]:
        """Bounds of the workers' contiguous blocks of a batch: worker w has [w]:[w + 1].

        Blocks differ by one at most, the larger ones first, so that a short batch needs no more of any worker than the
        full one.
        """
        share, rest = divmod(count, len(self._pipes))
        return [w * share + min(w, rest) for w in range(len(self._pipes) + 1)]

    def step(self, actions: np.ndarray) -> Step:
        """actions (B, 8) -> observations (B, 77) float32, rewards (B,), terminated, truncated, successes (B,) bool."""
        if self._group is not None:
            return self._group.step(actions)
        parts = self._broadcast("step", actions)
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def _broadcast(self, command: str, batch: Any) -> list[Any]:
        used = []
        for pipe, start, stop in zip(self._pipes, self._cuts, self._cuts[1:], strict=False):
            if stop > start:
                pipe.send((command, batch[start:stop]))
                used.append(pipe)
        return self._answers(used)

    @staticmethod
    def _answers(pipes: Sequence[Connection]) -> list[Any]:
        answers = [pipe.recv() for pipe in pipes]
        for ok, answer in answers:
            if not ok:
                raise RuntimeError(f"an environment's worker failed:\n{answer}")
        return [answer for _, answer in answers]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
        self._pipes, self._processes = [], []

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
