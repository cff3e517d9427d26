"""Is generated data true? The simulator is put into s, applies a, and its next state is held against s'.

An observation tells the arm's joints and their velocities, the fingers' and the object's pose. It does not tell the
object's velocity (taken as zero), the gripper's command (taken from the fingers) or the contact forces of the step
before. So recorded transitions do not come out exactly either: their errors, found in the same way, are the measure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from envs.composuite.state_setter import Parts, joint_angles
from envs.family import family_of
from offline_compositional_rl_datasets.composuite import CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import read_expert
from offline_compositional_rl_datasets.samples import read_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.loop.plan import generation_stages
from pipeline.loop.run import Run, found_in
from pipeline.results.physics_summary import LEVELS, UNITS, PhysicsSummary
from pipeline.stages.paths import PHYSICS_FILE, expert_files
from runtime.atomic import write_json
from runtime.errors import ConfigError, DataError
from runtime.seeds import rng
from runtime.tables import write_csv

log = logging.getLogger(__name__)

_DYNAMIC = tuple(UNITS)[:6]
_MOVED = "moved "


def errors(transitions: Transitions, task: Task, rows: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Quantity -> absolute error of `rows` transitions drawn at random, in the units of `UNITS`.

    `moved <quantity>` is by how much the data itself changes in the step, to judge an error by. Rows whose object
    rotation is not of unit length are left out; `undetermined` (1,) is their share.
    """
    chosen = generator.permutation(len(transitions))[:rows]
    setter = family_of(task).state_setter(task)
    usable = setter.determined(transitions.states[chosen])
    found: dict[str, list[float]] = {name: [] for name in (*UNITS, *(_MOVED + name for name in _DYNAMIC))}
    for row in chosen[usable]:
        state, action = transitions.states[row].astype(float), transitions.actions[row].astype(float)
        following = transitions.next_states[row].astype(float)
        own = setter.set(state, action)
        reached, reward, _ = setter.step(action)
        for name, value in _differences(reached, following).items():
            found[name].append(value)
        found["reward"].append(abs(reward - float(transitions.rewards[row])))
        found["tool within s"].append(1e3 * np.abs(own[Parts.tool] - state[Parts.tool]).max())
        for name, value in _differences(state, following).items():
            found[_MOVED + name].append(value)
    arrays = {name: np.array(values) for name, values in found.items()}
    return arrays | {"undetermined": np.array([1 - usable.mean()])}


def _differences(reached: np.ndarray, following: np.ndarray) -> dict[str, float]:
    turn = np.abs((joint_angles(reached) - joint_angles(following) + np.pi) % (2 * np.pi) - np.pi)
    length = float(np.linalg.norm(following[Parts.rotation]))
    # With a length far from 1 the direction still tells the rotation.
    alike = abs(float(reached[Parts.rotation] @ following[Parts.rotation])) / max(length, 1e-9)
    return {
        "arm joints": turn.max(),
        "joint velocities": np.abs(reached[Parts.velocities] - following[Parts.velocities]).max(),
        "fingers": 1e3 * np.abs(reached[Parts.fingers] - following[Parts.fingers]).max(),
        "tool position": 1e3 * float(np.linalg.norm(reached[Parts.tool] - following[Parts.tool])),
        "object position": 1e3 * float(np.linalg.norm(reached[Parts.position] - following[Parts.position])),
        "object rotation": float(np.degrees(2 * np.arccos(min(1.0, alike)))),
    }


def summary(task: Task, generated: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]) -> PhysicsSummary:
    """What goes into `physics.json`: quantiles of the errors, of generated and of real data."""

    def quantiles(arrays: Mapping[str, np.ndarray], names: Sequence[str], prefix: str = "") -> dict[str, list[float]]:
        known = [name for name in names if len(arrays[prefix + name])]
        return {name: [float(f"{q:.4g}") for q in np.quantile(arrays[prefix + name], LEVELS)] for name in known}

    return PhysicsSummary(
        task=task.name,
        rows=len(generated["reward"]),
        undetermined=float(generated["undetermined"][0]),
        levels=list(LEVELS),
        units=UNITS,
        generated=quantiles(generated, tuple(UNITS)),
        real=quantiles(real, tuple(UNITS)),
        moved=quantiles(real, _DYNAMIC, _MOVED),
    )


def check_run(run: Run, iteration: int | None, rows: int, *, seed: int = 0) -> list[PhysicsSummary]:
    """Check the sets of an iteration (None: the last with sets), `rows` of each; writes `physics.json` beside each.

    Raises `DataError` where there is no such set, or where the expert data of a training task is missing, `ConfigError`
    for a run of another family than CompoSuite.
    """
    if run.family.task_class is not CompoSuiteTask:
        raise ConfigError(f"family {run.family.name}: the physics check knows the quantities of CompoSuite alone")
    stages = found_in(run, iteration, lambda it: [s for s in generation_stages(run, it) if s.output.exists()])
    if not stages:
        which = "no iteration" if iteration is None else f"iteration {iteration}"
        raise DataError(f"{run.folder}: {which} has generated sets to check")
    files = expert_files(run.paths.data_path, run.config.dataset_type, run.tasks.train)
    parts = []
    for task, file in zip(run.tasks.train, files, strict=True):
        parts.append(errors(read_expert(file, task), task, rows, rng("physics", seed, task.name)))
        log.info("real data of %s: %d transitions", task, len(parts[-1]["reward"]))
    real = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    summaries = []
    for stage in stages:
        sample = read_samples(stage.output, stage.task, stage.task.layout)
        generated = errors(sample, stage.task, rows, rng("physics", seed, stage.name))
        summaries.append(summary(stage.task, generated, real))
        write_json(stage.output.with_name(PHYSICS_FILE), asdict(summaries[-1]))
        log.info("%s: %d transitions", stage.task, len(generated["reward"]))
    return summaries


def write_table(path: Path, summaries: Sequence[PhysicsSummary]) -> None:
    """A row per task and quantity: error quantiles of generated and real data, and by how much a real step moves it."""
    kinds = ("generated", "real", "moved")
    marks = [f"{kind}_{level}" for kind in kinds for level in LEVELS]
    rows = []
    for each in summaries:
        for name, unit in each.units.items():
            row: dict[str, Any] = {"task": each.task, "quantity": name, "unit": unit, "rows": each.rows}
            for kind in kinds:
                row |= {f"{kind}_{level}": value for level, value in each.quantiles(kind, name).items()}
            rows.append(row)
    write_csv(path, ["task", "quantity", "unit", "rows", *marks], rows)
