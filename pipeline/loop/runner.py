"""A run carried to its end: its folder is opened, its data prepared, its iterations run and watched.

Everything that is decided is in the state file, so that the same command run again continues where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence

from pipeline.jobs.attempts import Ledger
from pipeline.jobs.queue import make_site, resolve_cluster
from pipeline.jobs.stage import key_of
from pipeline.loop.algorithm import iterate
from pipeline.loop.config import PathConfig
from pipeline.loop.observer import Observer
from pipeline.loop.run import Run
from pipeline.loop.state import LoopState
from pipeline.loop.state_file import load_state, save_state
from pipeline.loop.steps import Steps
from pipeline.stages.paths import expert_files
from runtime.atomic import write_json
from runtime.config import to_dict
from runtime.cpus import cpu_count
from runtime.device import pick_device
from runtime.errors import DataError, StateError, one_line
from runtime.lease import Lease, LeaseHeldError

log = logging.getLogger(__name__)


def carry_out(run: Run, observers: Sequence[Observer] = ()) -> Run:
    """Carry a run to its end, from wherever it was; what it is then.

    Raises `StateError` where another loop holds the folder or another configuration or other data made it.
    """
    resolve_cluster(run.config.cluster.kind)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with Lease(run.lock_file):
            return _carry_out(open_folder(run, observers), observers)
    except LeaseHeldError as error:
        raise StateError(f"{run.folder}: another loop is running on this results folder ({error})") from error


def _carry_out(run: Run, observers: Sequence[Observer]) -> Run:
    ledger = Ledger(run.folder / "jobs.json")
    site = make_site(run.config.cluster, run.jobs_folder, ledger, run.folder / "code")
    if site.kind == "local":
        pick_device(run.config.device)  # before data is recorded for a device that is not here
    _announce(run, site.kind)
    for observer in observers:
        observer.opened(run)
    steps = Steps(run, site, ledger, observers)
    try:
        with contextlib.ExitStack() as watching:
            for observer in observers:
                watching.enter_context(observer.watch(lambda: steps.run))
            prepare_data(steps)
            for observer in observers:
                observer.begun(steps.run)
            iterate(steps)
    except BaseException as error:
        # Whatever it is, nobody must be told that the run goes on.
        ctrl_c = isinstance(error, KeyboardInterrupt) and not str(error)
        for observer in observers:
            observer.stopped(steps.run, "interrupted" if ctrl_c else one_line(error))
        raise
    for observer in observers:
        observer.ended(steps.run)
    return steps.run


def open_folder(run: Run, observers: Sequence[Observer] = ()) -> Run:
    """The run with the state that its folder has, which is made where there is none that can be used.

    Raises `StateError` where another configuration or another version made it, or an observer's files are another's.
    """
    begun = _recorded_state(run)
    for observer in observers:
        observer.claim(run)
    # With the folders that were found: whoever looks at the run later may have other settings.
    found = dataclasses.asdict(run.paths) | {"splits_path": run.config.paths.splits_path}
    paths = PathConfig(**found)
    write_json(run.folder / "config.json", to_dict(dataclasses.replace(run.config, paths=paths)))
    if begun is None:
        save_state(run.state_file, run.state)
        return run
    return run.at(begun)


def _recorded_state(run: Run) -> LoopState | None:
    file = run.state_file
    if not file.exists():
        return None
    try:
        state = load_state(file, run.family.parse)
    except DataError as error:
        damaged = file.with_name("state.json.damaged")
        file.replace(damaged)
        log.warning("%s; moved to %s, and found out again from the finished files", error, damaged.name)
        return None
    # Through JSON, as the recorded one went.
    here, recorded = to_dict(run.identity), dict(state.identity)
    differing = sorted(key for key in here.keys() | recorded.keys() if here.get(key) != recorded.get(key))
    if differing:
        key = differing[0]
        raise StateError(
            f"{file}: made by another configuration ({', '.join(differing)} differ: "
            f"{key} was {recorded.get(key)}, is {here.get(key)}); choose another results_path"
        )
    return dataclasses.replace(state, outcome=None)


def _announce(run: Run, site: str) -> None:
    config, tasks, state = run.config, run.tasks, run.state
    log.info("run %s in %s, jobs on %s", config.run_name, run.folder, site)
    counts = f"{len(tasks.train)} tasks with expert data, {len(tasks.middle)} middle, {len(tasks.test)} held out"
    log.info("%s; up to %d iterations, success above %s", counts, config.max_iterations, config.success_threshold)
    if state.iterations:
        where = f"in iteration {state.current.index}" if state.current else f"after iteration {state.next_index - 1}"
        log.info("continuing %s", where)
    if state.next_index > config.max_iterations:
        done = len(state.closed().iterations)
        log.info("asked for %d iterations: %d are done and kept, nothing is begun", config.max_iterations, done)


def prepare_data(steps: Steps) -> None:
    """Record what is missing, or raise `DataError` for the first missing file before anything runs.

    Raises `StateError` where the run was begun with other data.
    """
    run = steps.run
    data_path, dataset_type, tasks = run.paths.data_path, run.config.dataset_type, run.tasks.train
    if run.config.collect is not None:
        from envs.collect import collect

        collect(tasks, run.config.collect, data_path, dataset_type=dataset_type, workers=cpu_count())
    files = expert_files(data_path, dataset_type, tasks)
    keys = {task.name: key_of(file) for task, file in zip(tasks, files, strict=True)}
    for task, file in zip(tasks, files, strict=True):
        if run.state.expert_data.get(task.name, keys[task.name]) != keys[task.name]:
            raise StateError(f"{file}: not the file that {run.state_file} was begun with; choose another results_path")
    steps.save(dataclasses.replace(run.state, expert_data=keys))
