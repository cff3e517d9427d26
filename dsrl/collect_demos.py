"""Record demonstrations of the scripted experts in Robomimic's HDF5 layout, or fetch the published ones.

Example:
    python -m dsrl.collect_demos --tasks lift can square --num_demos 200
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import math
import multiprocessing
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a plain script from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from dsrl.demos import DATA_FILES, Demonstration, read_demonstrations, write_demonstrations
from dsrl.recorded_env import recorded_task
from dsrl.tasks import Task, standard_task
from envs.gymnasium_task import GymnasiumTask
from envs.robomimic.arguments import TASK_SERIES
from envs.robomimic.experts import EXPERTS
from envs.robomimic.task import RobomimicTask
from runtime.atomic import artifact_info, atomic_path, checksum, commit_artifact
from runtime.checks import distinct
from runtime.cli import parse_flags
from runtime.config import to_dict
from runtime.errors import ConfigError, DataError, JobError, StateError, one_line
from runtime.logs import progress
from runtime.main import run_main
from runtime.seeds import derive_seed, rng

if TYPE_CHECKING:
    from envs.robomimic.env import RobomimicEnv

log = logging.getLogger(__name__)

PUBLISHED = "https://huggingface.co/datasets/robomimic/robomimic_datasets/resolve/main/v1.5/{task}/ph/low_dim_v15.hdf5"
"""Where robomimic's own downloader finds them today: human demonstrations, extracted with robosuite 1.5.1."""

NOISE = {"lift": 0.2, "can": 0.15, "square": 0.1}
"""Default exploration noise by task."""

_SCRIPTED = {"1.4": "low_dim_scripted.hdf5", "1.5": "low_dim_scripted_v15.hdf5"}
_AFTER_SUCCESS = 5  # recorded steps, as in the human data
_VALID_SHARE = 10  # every tenth demonstration is for validation
_CHUNK = 10  # episodes that a process records at a time
_Chunk = tuple[Task, "DemoConfig", list[int]]


@dataclass(frozen=True)
class DemoConfig:
    """How many demonstrations, and how far the expert is disturbed in them.

    `noise` is the standard deviation of what is added to the six arm numbers of every executed action; the recorded
    action is the expert's own, so that the data shows the way back. A run that is not solved within `horizon` control
    steps is not recorded. `expert` is the checkpoint of the policy that acts in a task of gymnasium.
    """

    num_demos: int = 200
    noise: float = 0.2
    horizon: int = 400
    seed: int = 0
    expert: str = ""

    def __post_init__(self) -> None:
        if self.num_demos < 1 or self.horizon < 1 or not 0 <= self.noise < math.inf:
            raise ConfigError(
                f"num_demos {self.num_demos}, horizon {self.horizon}, noise {self.noise}: expected at least 1, 1 and 0"
            )


def record(env: RobomimicEnv, config: DemoConfig, number: int) -> Demonstration | None:
    """Run `number`'s episode; None where it was not solved. Start and noise depend on the number alone."""
    from envs.robomimic.experts import expert_of

    name = env.task.name
    expert, noise = expert_of(env.task), rng("demo-noise", config.seed, name, number)
    keys = tuple(env.task.observation_dims)
    observation, _ = env.reset(seed=derive_seed("demo-start", config.seed, name, number))
    model_xml = env.model_xml()
    seen = [{key: env.observer[key]() for key in keys}]
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    executed: list[np.ndarray] = []
    rewards: list[float] = []
    left = _AFTER_SUCCESS
    while left and len(actions) < config.horizon + _AFTER_SUCCESS:
        action = expert(observation)
        moved = action.copy()
        moved[:6] += config.noise * noise.standard_normal(6)
        moved = np.clip(moved, -1.0, 1.0)
        states.append(env.state())
        observation, reward, *_ = env.step(moved)
        seen.append({key: env.observer[key]() for key in keys})
        actions.append(action)
        executed.append(moved)
        rewards.append(reward)
        if any(rewards):
            left -= 1
        elif len(actions) >= config.horizon:
            return None
    columns = {key: np.stack([row[key] for row in seen]) for key in keys}
    return Demonstration(
        states=np.stack(states),
        actions=np.stack(actions),
        rewards=np.array(rewards),
        observations={key: column[:-1] for key, column in columns.items()},
        following={key: column[1:] for key, column in columns.items()},
        model_xml=model_xml,
        executed=np.stack(executed),
    )


def _record_chunk(work: _Chunk) -> list[Demonstration | None]:
    import envs

    task, config, numbers = work
    if isinstance(task, GymnasiumTask):
        from dsrl import sac_expert

        own, expert = task.make_env(horizon=config.horizon), sac_expert.read_expert(Path(config.expert), task)
        return [
            sac_expert.record(own, task, expert, noise=config.noise, seed=config.seed, number=number)
            for number in numbers
        ]
    env = envs.make(task, horizon=config.horizon + _AFTER_SUCCESS + 1)
    return [record(env, config, number) for number in numbers]


@contextlib.contextmanager
def _in_processes(chunks: Sequence[_Chunk], workers: int) -> Iterator[Iterator[list[Demonstration | None]]]:
    """Record chunks in processes of their own, in order. Raises `JobError` where one of these is killed."""
    pool = ProcessPoolExecutor(min(workers, len(chunks)), multiprocessing.get_context("spawn"))
    try:
        yield pool.map(_record_chunk, chunks)
    except BrokenProcessPool as error:
        raise JobError(
            f"{chunks[0][0]}: a recording process was killed, perhaps for want of memory; with fewer --workers it "
            "needs less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def collect(task: Task, config: DemoConfig, path: Path, *, workers: int = 1) -> float:
    """Write the first `num_demos` solved episodes to `path`; returns the share of solved ones.

    A file that the same configuration made is kept. Raises `StateError` for one that was made otherwise, `DataError`
    where more than half of the episodes fail, `JobError` where a recording process is killed.
    """
    info = {"task": task.name, **to_dict(config)}
    del info["expert"]
    if config.expert:
        info |= {"expert": checksum(config.expert), "env_args": task.env_args}
    if path.exists():
        known = artifact_info(path)
        if known is None or {key: known.get(key) for key in info} != info:
            raise StateError(f"{path}: made by another configuration ({known}), expected {info}; move it away")
        return float(known["success_rate"])
    path.parent.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is told before the work
    demos: list[Demonstration] = []
    tried = 0
    chunks = [(task, config, list(range(start, start + _CHUNK))) for start in range(0, 2 * config.num_demos, _CHUNK)]
    with progress(config.num_demos, f"demonstrations of {task}") as bar, _in_processes(chunks, workers) as parts:
        for recorded in parts:
            for demo in recorded:
                if len(demos) == config.num_demos:
                    break
                tried += 1
                if demo is not None:
                    demos.append(demo)
                    bar.update(1, solved=f"{len(demos)}/{tried}")
            if len(demos) == config.num_demos:
                break
    if len(demos) < config.num_demos:
        raise DataError(f"{task}: only {len(demos)} of {tried} episodes were solved; lower the noise ({config.noise})")
    rate = len(demos) / tried
    valid = [i for i in range(len(demos)) if i % _VALID_SHARE == _VALID_SHARE - 1]
    train = [i for i in range(len(demos)) if i not in set(valid)]
    attributes = {
        "demonstrator": "sac" if config.expert else "scripted",
        "seed": config.seed,
        "noise": config.noise,
        "success_rate": rate,
    }
    commit_artifact(
        path,
        lambda temporary: write_demonstrations(temporary, demos, task, {"train": train, "valid": valid}, attributes),
        {**info, "success_rate": rate, "tried": tried},
    )
    lengths = np.array([len(demo) for demo in demos])
    log.info("%s: %d of %d episodes solved, mean length %.0f, %s", task, len(demos), tried, lengths.mean(), path)
    return rate


def fetch(name: str, path: Path, url: str = PUBLISHED) -> None:
    """Fetch a published data set and check that it is one of the task `name`.

    Raises `DataError` where the network does not give it; nothing is left then.
    """
    try:
        address = url.format(task=name)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"--url {url!r}: expected an address with {{task}} in place of the task's name") from error
    if "://" not in address:
        raise ConfigError(f"--url {url!r}: expected an address such as {PUBLISHED}")
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                shutil.copyfileobj(answer, file)
            _check(temporary, name, address)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"{address}: cannot be fetched from here ({getattr(error, 'reason', '') or one_line(error)}); put the file "
            f"at {path} by hand, or record scripted demonstrations without --download"
        ) from error
    log.info("%s: fetched", path)


def _check(file: Path, name: str, address: str) -> None:
    try:
        task = recorded_task(read_demonstrations(file), str(file))
    except DataError as error:
        raise DataError(f"{address}: gives no data set ({one_line(error).replace(f'{file}: ', '')})") from error
    if task.name != name:
        raise DataError(f"{address}: demonstrations of the task {task.name!r}, not of {name!r}")


@dataclass(frozen=True)
class DemoFlags:
    """What is recorded."""

    num_demos: int = 200
    """solved episodes to record of each task"""
    noise: float | None = None
    """standard deviation of the noise on executed actions; default by task"""
    horizon: int | None = None
    """control steps within which an episode must be solved [400; 1000 of a task of gymnasium]"""
    seed: int = 0
    """of starts and noise"""
    robosuite: str = "1.4"
    """1.4 or 1.5, whose environment is recorded; 1.5 writes low_dim_scripted_v15.hdf5"""
    expert: Path | None = None
    """of gymnasium's tasks: sac_policy_model.pt of scripts.train_sac_gymnasium, which acts"""
    success_return: float | None = None
    """of gymnasium's tasks: return of a solved episode; default: gymnasium's own threshold"""

    def config(self, task: Task) -> DemoConfig:
        """Raises `ConfigError` for values that cannot be."""
        learned = isinstance(task, GymnasiumTask)
        noise = (0.0 if learned else NOISE[task.name]) if self.noise is None else self.noise
        horizon = (1000 if learned else 400) if self.horizon is None else self.horizon
        return DemoConfig(self.num_demos, noise, horizon, self.seed, str(self.expert) if learned else "")


def main(
    demos: DemoFlags,
    tasks: tuple[str, ...] = ("lift",),
    workers: int = 0,
    datasets: Path = Path("datasets"),
    download: bool = False,
    url: str = PUBLISHED,
) -> None:
    """Write `<datasets>/<task>/scripted/low_dim_scripted.hdf5`, or with --download `<task>/ph/low_dim_v15.hdf5`.

    Args:
        tasks: lift, can, square, or a MuJoCo task of gymnasium such as Hopper-v5 (with --expert)
        workers: processes (0: one per core)
        datasets: root of the data sets
        download: fetch the published human demonstrations instead
        url: where from, with {task} in place of the task's name; a low_dim_v141.hdf5 keeps its name
    """
    from runtime.cpus import cpu_count
    from runtime.logs import configure_logging

    configure_logging()
    if workers < 0:
        raise ConfigError(f"--workers {workers}: expected 0 or more")
    if demos.robosuite not in _SCRIPTED:
        raise ConfigError(f"--robosuite {demos.robosuite}: expected {' or '.join(_SCRIPTED)}")
    distinct("--tasks", tasks)
    for name in tasks:  # raises for an unknown name before anything is recorded
        learned = isinstance(standard_task(name), GymnasiumTask)
        if learned and (demos.expert is None or not demos.expert.is_file()):
            raise ConfigError(
                f"--expert {demos.expert}: expected the sac_policy_model.pt of a policy that acts in {name}"
            )
        if learned and download:
            raise ConfigError(f"--download: no published demonstrations of {name}, expected --expert")
        if not learned and not download and name not in EXPERTS:
            raise ConfigError(
                f"--tasks {name}: no scripted demonstrator, expected one of {', '.join(EXPERTS)}; demonstrations "
                f"of {name} are published files alone: put {DATA_FILES[0]} at {datasets / name / 'ph'}"
            )
        if download and name in TASK_SERIES and not url.endswith(DATA_FILES[0]):
            raise ConfigError(
                f"--download: {name} is published today as of robosuite 1.5, expected --url of a {DATA_FILES[0]}: "
                f"{name} is built as of robosuite {' or '.join(TASK_SERIES[name])} alone"
            )
    for name in tasks:
        if download:
            old = url.rpartition("/")[2] == DATA_FILES[0]
            path = datasets / name / "ph" / DATA_FILES[0 if old else 1]
            fetch(name, path, url)
            print(f"{name}: published demonstrations, {path}")
            continue
        if isinstance(standard_task(name), GymnasiumTask):
            task: Task = GymnasiumTask.standard(name, demos.success_return)
            path = datasets / name / "scripted" / _SCRIPTED["1.4"]
        else:
            task = RobomimicTask.standard(name, demos.robosuite)
            path = datasets / name / "scripted" / _SCRIPTED[demos.robosuite]
        rate = collect(task, demos.config(task), path, workers=workers or cpu_count())
        if isinstance(task, GymnasiumTask):
            solved = f"{rate:.1%} reach {task.success_return:g}"
        else:
            solved = f"{rate:.1%} of the episodes solved"
        print(f"{name}: {demos.num_demos} demonstrations, {solved}, {path}")


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
