"""Which sets are handed on, and what their cards say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium

from envs.family import family_of
from envs.registration import COMPOSUITE_NAMESPACE
from offline_compositional_rl_datasets.check import check_task
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.export import Card, minari_id, write_flat, write_minari
from offline_compositional_rl_datasets.lerobot import write_lerobot
from offline_compositional_rl_datasets.samples import read_samples
from offline_compositional_rl_datasets.task import Task
from pipeline.loop.run import open_run
from pipeline.stages.paths import samples_file
from runtime.atomic import artifact_info
from runtime.errors import ConfigError, DataError

log = logging.getLogger(__name__)

MINARI_ROOT, LEROBOT_ROOT, FLAT_ROOT = "minari", "lerobot", "transitions"
"""Folder of each format under `--out`: a root has nothing in it that its readers do not know."""


def export_expert(data_path: Path, dataset_type: str, tasks: Sequence[Task], out: Path, *, licence: str) -> list[str]:
    """Each task's file as a Minari data set under `out/minari`; gives their names.

    The environment of CompoSuite's is `CompoSuite/<task>-v0`; others name none. Raises `DataError` for a missing or
    damaged file, `StateError` where a data set is there already.
    """
    written, root = [], Path(out) / MINARI_ROOT
    for task, (file, card) in _expert_sources(data_path, dataset_type, tasks, licence).items():
        name, environment = minari_id(family_of(task).name, task, dataset_type), f"{COMPOSUITE_NAMESPACE}/{task}-v0"
        env = gymnasium.spec(environment) if isinstance(task, CompoSuiteTask) else None
        write_minari(file, name, root, card, env=env)
        log.info("%s: %s", task, root / name)
        written.append(name)
    return written


def export_lerobot(data_path: Path, dataset_type: str, tasks: Sequence[Task], out: Path, *, licence: str) -> list[Path]:
    """The tasks' files as LeRobot data sets under `out/lerobot`, one for each robot where the family has several.

    Gives their folders.

    Raises `DataError` for a missing or damaged file, `StateError` where a data set is there already, `ConfigError`
    where it is not known how many control steps a second has.
    """
    family = family_of(tasks)
    rate = family.steps_per_second()
    if rate is None:
        raise ConfigError(
            f"family {family.name}: how many control steps a second has is not known, expected control_frequency of "
            "the family, or render_fps in its environments' metadata"
        )
    sources = _expert_sources(data_path, dataset_type, tasks, licence)
    written = []
    for robot in dict.fromkeys(getattr(task, "robot", None) for task in tasks):
        mine = [source for task, source in sources.items() if getattr(task, "robot", None) == robot]
        name = "_".join([family.name, *([robot.lower()] if robot else []), dataset_type])
        folder = Path(out) / LEROBOT_ROOT / name
        written.append(write_lerobot(mine, folder, fps=rate, robot=robot or family.name))
        log.info("%d tasks: %s", len(mine), folder)
    return written


def _expert_sources(
    data_path: Path, dataset_type: str, tasks: Sequence[Task], licence: str
) -> dict[Task, tuple[Path, Card]]:
    """The file of each task, checked, with its card. Raises `DataError` for the first that is missing or damaged."""
    files = [family_of(task).data_file(data_path, dataset_type, task) for task in tasks]
    return {
        task: (file, _expert_card(task, file, data_path, dataset_type, licence))
        for task, file in zip(tasks, files, strict=True)
    }


def _expert_card(task: Task, file: Path, data_path: Path, dataset_type: str, licence: str) -> Card:
    report = check_task(data_path, dataset_type, task)
    if report.faults:
        raise DataError(f"{file}: {'; '.join(report.faults)}")
    info = artifact_info(file)
    origin = "recorded with this project" if info else f"data set `{dataset_type}` in the published layout"
    if info:
        origin += f": {_recorded(info)}"
    success = f"{report.success:.2f} of episodes at their last step; mean return {report.mean_return:.1f}"
    if info and "success_rate" in info:  # recorded here: disturbances cut a run into several episodes
        success = f"{info['success_rate']:.2f} of {info['episodes']} runs, which disturbances cut into episodes"
    facts = {k: v for k, v in (info or {}).items() if k not in ("successes", "returns", "policy")}
    return Card(f"{task.name}, {dataset_type} data", task, origin, success, licence, facts)


def _recorded(info: Mapping[str, Any]) -> str:
    """Who acted in a set that was recorded here."""
    who = "published policy" if info.get("policy") else "scripted expert"
    first, last = info.get("random_share") or (0, 0)
    return f"{who}, acting at random for {first:.0%} to {last:.0%} of its time" if first or last else who


def export_synthetic(
    folder: Path, tasks: Sequence[str], out: Path, *, licence: str, family: str | None = None
) -> list[Path]:
    """The best generated set of each named task (default: the held-out tasks) of a run, flat, under `out/transitions`.

    `family` as `open_run` takes it. Raises `DataError` where none of them has a score yet or a sample file is gone.
    """
    run = open_run(folder, family=family)
    named = [run.family.parse(name) for name in tasks] or run.tasks.test
    chosen = [(task, best) for task in named if (best := run.state.best(task)) is not None]
    if not chosen:
        raise DataError(f"{folder}: no set of these tasks has been validated")
    written = []
    for task, (rate, iteration) in chosen:
        path = samples_file(run.paths.results_path, iteration, run.config.model_name(iteration), task)
        scores = run.state.iterations[iteration].scores[task].values()
        counts = f"{sum(s.solved for s in scores)} of {sum(s.trials for s in scores)} episodes"
        algorithm = run.config.policy.algorithm.upper().replace("TD3_BC", "TD3+BC")
        kind = "held out: no real data of this task was used" if task in run.tasks.test else "a middle task"
        card = Card(
            f"{task.name}, generated data",
            task,
            f"drawn from the diffusion model of iteration {iteration} of run `{run.config.run_name}`; {kind}",
            f"{float(rate):.2f} ({counts}) of {algorithm} policies that saw these data alone",
            licence,
            {
                "expert data of": ", ".join(t.name for t in run.tasks.train),
                "sampler": f"{run.config.sampling.solver}, {run.config.sampling.steps} steps",
                **{k: v for k, v in (artifact_info(path) or {}).items() if k not in ("model", "task")},
            },
        )
        target = Path(out) / FLAT_ROOT / task.name / "generated-v0"
        written.append(write_flat(read_samples(path, task, task.layout), target, card))
        log.info("%s: %s", task, written[-1])
    return written
