"""Record data sets in the published layout, with several processes, in parts that survive a kill.

Each process writes the runs it has recorded as a small file of the same layout; when a task's parts are all there they
are joined. So memory does not grow with the size of the data, and what is recorded is never recorded twice.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.family import Expert, family_of
from envs.recording import CollectConfig, record
from offline_compositional_rl_datasets.hdf5 import join_expert, task_file, write_expert
from offline_compositional_rl_datasets.task import Task
from runtime.atomic import artifact_info, commit_artifact
from runtime.config import to_dict
from runtime.errors import DataError, JobError, StateError
from runtime.lease import waiting_lock
from runtime.logs import progress

log = logging.getLogger(__name__)

_RUNS_PER_PART = 5
"""Runs that one process steps side by side, and the grain of what a kill can cost."""


@dataclass(frozen=True)
class _Part:
    """Runs `numbers` of a task, recorded by one process into one file. Callable in any process."""

    task: Task
    config: CollectConfig
    numbers: tuple[int, ...]
    policy: Path | None
    path: Path
    info: Mapping[str, Any]

    def is_done(self) -> bool:
        known = artifact_info(self.path)
        return known is not None and _agrees(known, self.info)

    def __call__(self) -> None:
        runs = record(self.task, self.config, self.numbers, _expert(self.task, self.policy))
        episodes = [episode for run in runs for episode in run.episodes]
        if not episodes:
            raise DataError(
                f"{self.task}: no episode of two steps or more in {len(runs)} runs of horizon {self.config.horizon} "
                f"with shove_every {self.config.shove_every}: expected more of both"
            )
        outcome = {
            "successes": [bool(run.success) for run in runs],
            "returns": [float(run.total_reward) for run in runs],
        }
        commit_artifact(
            self.path, lambda temporary: write_expert(temporary, episodes, self.task), {**self.info, **outcome}
        )


def _expert(task: Task, policy: Path | None) -> Expert:
    """That of the task's family, or the policy in a file."""
    family = family_of(task)
    return family.expert(task) if policy is None else family.expert(task, policy)


def _agrees(known: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
    return {key: known.get(key) for key in info} == dict(info)


def _different(known: Mapping[str, Any] | None, info: Mapping[str, Any]) -> str:
    """Which settings a file was made with that are not those of `info`."""
    if known is None:
        return "it has no side file that says how it was made"
    return ", ".join(f"{key} {known.get(key)}, not {value}" for key, value in info.items() if known.get(key) != value)


def _run_all(parts: Sequence[_Part], workers: int) -> Generator[_Part, None, None]:
    """Record parts in processes of their own, in any order. Raises `JobError` where one of these is killed."""
    pool = ProcessPoolExecutor(min(workers, len(parts)), multiprocessing.get_context("spawn"), _begin)
    try:
        futures = {pool.submit(part): part for part in parts}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool as error:
        raise JobError(
            "a recording process was killed, perhaps for want of memory; what was recorded is kept: the same command "
            "continues, with fewer --workers it needs less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In each process: leave Ctrl-C and a closed terminal to the parent, which lets parts be finished; end with it."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is one of its children

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _parts_folder(path: Path) -> Path:
    return path.with_name(f".{path.stem}_parts")


def _info(config: CollectConfig, policy: Path | None) -> dict[str, Any]:
    """What a file's side file says of how it was made."""
    return {**to_dict(config), "policy": None if policy is None else str(policy)}


def recorded_share(path: Path, config: CollectConfig, policy: Path | None) -> tuple[float, float] | None:
    """The share of random actions in what the same command has recorded for `path` before; None: nothing yet.

    Finding it anew would cost more than to record a small set.
    """
    wanted = _info(config, policy)
    del wanted["random_share"]
    for place in (path, *sorted(_parts_folder(path).glob("*.hdf5"))):
        known = artifact_info(place)
        if known is not None and _agrees(known, wanted):
            first, last = known["random_share"]
            return first, last
    return None


def collect(
    tasks: Sequence[Task],
    config: CollectConfig,
    data_path: Path,
    *,
    dataset_type: str = "expert",
    workers: int = 1,
    policies: Mapping[Task, Path] | None = None,
) -> dict[Task, float]:
    """Write each task's file; returns the success rate (of the last step) per task.

    `policies` names a published policy's file per task, to be recorded instead of the scripted expert. A file that the
    same configuration made is kept. Raises `StateError` for one that was made otherwise. Of several processes that want
    files in one folder, one records and the others wait for it.
    """
    policies = policies or {}
    for task in tasks:
        _expert(task, policies.get(task))  # raises for a task without one before hours of recording, not after
    missing = [path for path in (task_file(data_path, dataset_type, task) for task in tasks) if not path.exists()]
    with contextlib.ExitStack() as stack:
        if missing:  # finished data may be read-only
            folder = missing[0].parent.parent
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(waiting_lock(folder))
        return _collect(tasks, config, data_path, dataset_type, workers, policies)


def _collect(
    tasks: Sequence[Task],
    config: CollectConfig,
    data_path: Path,
    dataset_type: str,
    workers: int,
    policies: Mapping[Task, Path],
) -> dict[Task, float]:
    rates: dict[Task, float] = {}
    parts: dict[Task, list[_Part]] = {}
    for task in tasks:
        path = task_file(data_path, dataset_type, task)
        info = _info(config, policies.get(task))
        if path.exists():
            known = artifact_info(path)
            if known is None or not _agrees(known, info):
                raise StateError(f"{path}: made by another configuration ({_different(known, info)}); move it away")
            rates[task] = known["success_rate"]
            continue
        parts[task] = [
            _Part(
                task=task,
                config=config,
                numbers=tuple(range(start, min(start + _RUNS_PER_PART, config.episodes))),
                policy=policies.get(task),
                path=_parts_folder(path) / f"{start:06d}.hdf5",
                info=info,
            )
            for start in range(0, config.episodes, _RUNS_PER_PART)
        ]
    every = [part for of_task in parts.values() for part in of_task]
    missing = [part for part in every if not part.is_done()]
    left = {task: sum(part.task == task for part in missing) for task in parts}
    for task, count in left.items():
        if not count:
            rates[task] = _join(task_file(data_path, dataset_type, task), parts[task])
    if missing:
        done = sum(len(part.numbers) for part in every) - sum(len(part.numbers) for part in missing)
        with (
            contextlib.closing(_run_all(missing, workers)) as recorded,
            progress(len(parts) * config.episodes, "runs", done=done) as bar,
        ):
            for part in recorded:
                bar.update(len(part.numbers), task=part.task.name)
                left[part.task] -= 1
                if not left[part.task]:
                    rates[part.task] = _join(task_file(data_path, dataset_type, part.task), parts[part.task])
    return {task: rates[task] for task in tasks}


def _join(path: Path, parts: Sequence[_Part]) -> float:
    """Make a task's file of its parts, which are removed; returns the success rate."""
    outcomes = [artifact_info(part.path) or {} for part in parts]
    successes = [success for outcome in outcomes for success in outcome["successes"]]
    rate = float(np.mean(successes))
    returns = float(np.mean([value for outcome in outcomes for value in outcome["returns"]]))
    commit_artifact(
        path,
        lambda temporary: join_expert([part.path for part in parts], temporary, parts[0].task.layout),
        {**parts[0].info, "success_rate": rate, "mean_return": returns},
    )
    shutil.rmtree(_parts_folder(path))
    log.info("%s: %d runs, success %.2f, return %.0f", parts[0].task, len(successes), rate, returns)
    return rate
