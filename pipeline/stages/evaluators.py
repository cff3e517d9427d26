"""Evaluations in processes of their own, while training goes on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from corl.evaluate import Evaluation, evaluate
from corl.policy import Policy
from envs.pool import EnvPool, WorkerError
from offline_compositional_rl_datasets.task import Task

_MOST_ENVIRONMENTS = 50
_environments: dict[tuple[Task, int, int], EnvPool] = {}


def environments_for(n_episodes: int, fresh_episodes: int) -> int:
    """How many episodes run side by side: all of an evaluation, of the fresh ones so many at a time."""
    return max(n_episodes, min(fresh_episodes, _MOST_ENVIRONMENTS))


class Evaluators:
    """A pool of `workers` processes. An evaluation is one unit of work: its policy sees the same batches as alone.

    To be used as a context manager; on an error what has not begun is dropped. Raises `WorkerError` on leaving where
    one of the processes was killed.
    """

    def __init__(self, workers: int, *, num_envs: int, horizon: int) -> None:
        self.workers, self.num_envs, self.horizon = workers, num_envs, horizon
        # Spawned, not forked: the parent holds threads of torch.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare)

    def submit(self, task: Task, policy: Policy, seeds: Sequence[int]) -> Future[Evaluation]:
        """One episode per seed of a policy on the CPU."""
        return self._pool.submit(_evaluate, task, policy, list(seeds), self.num_envs, self.horizon)

    def __enter__(self) -> Evaluators:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise WorkerError(
                f"one of {self.workers} processes that evaluate policies was killed, perhaps for want of memory; "
                "the evaluations under way are lost"
            ) from error


def _prepare() -> None:
    torch.set_num_threads(1)


def _evaluate(task: Task, policy: Policy, seeds: list[int], num_envs: int, horizon: int) -> Evaluation:
    """In a worker, which keeps the environments of its last task."""
    key = (task, num_envs, horizon)
    if key not in _environments:
        _environments.clear()
        _environments[key] = EnvPool(task, num_envs, horizon=horizon)
    return evaluate(policy, _environments[key], seeds)
