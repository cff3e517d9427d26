"""What moves success on held-out tasks: variants of one configuration of the loop, each to the end of iteration 0.

Example: python -m benchmarks.study --study config/study/demo.yaml --out results/study

The study file names a configuration (`base`) and what each variant sets otherwise. A variant is a run of the loop in a
folder of its own: it goes on where it was when the command is run again, on the cluster that its configuration names.
Variants that train the same generator (they differ in sampling or in policies) share it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffusion.denoisers import build
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.samples import read_samples
from offline_compositional_rl_datasets.task import Task
from runtime.cli import parse_flags
from runtime.errors import ConfigError, DataError, one_line
from runtime.intervals import wilson
from runtime.main import run_main
from runtime.tables import write_csv

if TYPE_CHECKING:
    from pipeline.loop.config import PipelineConfig
    from pipeline.stages.generator import TrainGenerator

COLUMNS = ("variant", "only_steps", "task", "flop", "solved", "trials", "mean_return", "action_error", "distance")
_ROWS = 2000  # of a set are shown to the expert


@dataclass(frozen=True)
class Study:
    """`variants`: name -> what it sets otherwise than the configuration file `base`."""

    base: Path
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.variants:
            raise ConfigError("variants: expected at least one")
        names: dict[str, str] = {}
        for name in self.variants:
            folder = folder_name(name)
            if folder in ("", ".", "..") or Path(folder).name != folder:
                raise ConfigError(f"variant {name!r}: expected a name that a folder can have")
            if names.setdefault(folder, name) != name:
                raise ConfigError(f"variants {names[folder]!r} and {name!r}: would share the folder {folder}")


def folder_name(variant: str) -> str:
    return variant.replace(" ", "_")


def action_error(observations: np.ndarray, actions: np.ndarray, task: Task) -> float:
    """Root mean square, over rows and dimensions, of actions (N, 8) less the scripted expert's in those states (N, 77).

    Actions lie in [-1, 1]; the error of the expert's own recordings is the noise with which they were recorded.
    """
    from envs.family import family_of

    chosen = np.linspace(0, len(actions) - 1, min(_ROWS, len(actions))).astype(int)
    wanted = family_of(task).expert(task)(observations[chosen])
    return float(np.sqrt(np.mean((np.clip(actions[chosen], -1.0, 1.0) - wanted) ** 2)))


def training_flop(config: PipelineConfig, rows: int) -> float:
    """FLOP of the products of a generator's whole training on a pool of so many rows."""
    network = build(COMPOSUITE, config.network)
    x, condition = torch.zeros(8, COMPOSUITE.transition_dim), torch.zeros(8, COMPOSUITE.condition_dim)
    with FlopCounterMode(display=False) as counter:
        if config.network.order == "state_first":  # half of a batch learns the state alone
            states, levels = x[:4, COMPOSUITE.state], torch.zeros(4, 2)
            alone, given = network(states, levels, condition[:4]), network(x[4:], levels, condition[4:])
            (alone.sum() + given.sum()).backward()
        else:
            network(x, torch.zeros(8), condition).sum().backward()
    flop = float(counter.get_total_flops())
    return flop / 8 * config.training.batch_size_for(rows) * config.training.steps


def configuration(name: str, study: Study, out: Path) -> PipelineConfig:
    """A variant's configuration, with folders of its own. Raises `ConfigError` naming the variant."""
    from pipeline.loop.config import load_pipeline_config
    from runtime.config import config_hash, merge

    try:
        config = load_pipeline_config(study.base, merge({"max_iterations": 1}, study.variants[name]))
    except ConfigError as error:
        raise ConfigError(f"variant {name!r} over {error}") from error
    folder = out / folder_name(name)
    paths = dataclasses.replace(config.paths, results_path=folder, logs_path=folder / "logs")
    if config.collect:  # variants that record in the same way share their recordings
        paths = dataclasses.replace(paths, data_path=out / f"data_{config_hash(config.collect)}")
    return dataclasses.replace(config, paths=paths)


def take_generator(stage: TrainGenerator, trained: Mapping[str, Path]) -> None:
    """Copy the stage's model from a variant that trained the same on the same data (`trained`: key -> its folder)."""
    folder = stage.checkpoint.parent
    try:
        same = trained.get(stage.key())
    except DataError:  # not recorded yet
        return
    if same is None or folder.exists():
        return
    copy = folder.with_name(f"{folder.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for file in same.iterdir():
        if file.is_file():  # folders are the other variant's sets
            shutil.copy2(file, copy)
    copy.replace(folder)


def run_variant(
    name: str, otherwise: Mapping[str, Any], config: PipelineConfig, trained: dict[str, Path]
) -> list[dict[str, Any]]:
    """Run the loop's first iteration, or find it done; a row per held-out task. Its generator is added to `trained`."""
    from pipeline.commands.iterate import watched
    from pipeline.loop.plan import generation_stages, generator_stage
    from pipeline.loop.run import Run
    from pipeline.loop.state import Iteration
    from runtime.atomic import artifact_info

    run = Run.of(config)
    take_generator(generator_stage(run, Iteration(0, targets=(), sources={}, phase=None)), trained)
    run = watched(run)
    iteration = run.state.iterations[0]
    generator = generator_stage(run, iteration)
    trained[generator.key()] = generator.checkpoint.parent
    info = artifact_info(generator.checkpoint)
    assert info is not None  # the loop has written it
    flop = training_flop(config, info["rows"])
    only_steps = set(otherwise) <= {"training"} and set(otherwise.get("training", {})) <= {"steps"}
    rows = []
    for stage in generation_stages(run, iteration):
        transitions = read_samples(stage.output, stage.task, COMPOSUITE)
        scores = iteration.scores.get(stage.task, {}).values()
        quality = stage.quality()
        rows.append(
            {
                "variant": name,
                "only_steps": only_steps,
                "task": stage.task.name,
                "flop": flop,
                "solved": sum(score.solved for score in scores),
                "trials": sum(score.trials for score in scores),
                "mean_return": np.mean([score.mean_return for score in scores]) if scores else "",
                "action_error": action_error(transitions.states, transitions.actions, stage.task),
                "distance": quality.distance if quality else "",
            }
        )
    return rows


def earlier_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Variant -> its rows of a `study.csv`, if there is one. Raises `ConfigError` if it is another table."""
    if not path.exists():
        return {}
    try:
        table = pd.read_csv(path, dtype={"variant": str}, keep_default_na=False)
    except ValueError as error:  # empty, not a table, not text
        raise ConfigError(f"{path}: not a table of a study ({one_line(error)})") from error
    if tuple(table.columns) != COLUMNS:
        raise ConfigError(f"{path}: has the columns {', '.join(table.columns)}, expected {', '.join(COLUMNS)}")
    return {name: own.to_dict("records") for name, own in table.groupby("variant")}


def averages(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Success and action error over a variant's tasks."""
    success = sum(row["solved"] for row in rows) / max(1, sum(row["trials"] for row in rows))
    return success, float(np.mean([row["action_error"] for row in rows]))


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success and action error against the generator's training where only steps vary; and each variant's success."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    names = dict.fromkeys(row["variant"] for row in rows)
    variants = {name: [row for row in rows if row["variant"] == name] for name in names}
    size = (12, max(6.0, 1.5 + 0.28 * len(variants)))
    figure, axes = plt.subplot_mosaic([["success", "all"], ["error", "all"]], figsize=size, layout="constrained")
    curve = sorted((own[0]["flop"] / 1e12, *averages(own)) for own in variants.values() if own[0]["only_steps"])
    for name, column, label in (("success", 1, "success on held-out tasks"), ("error", 2, "action error (RMS)")):
        axes[name].plot([point[0] for point in curve], [point[column] for point in curve], marker="o")
        axes[name].set(xscale="log", xlabel="training of the generator (TFLOP)", ylabel=label)
        axes[name].set_xticks([point[0] for point in curve], [f"{point[0]:.0f}" for point in curve])
        axes[name].minorticks_off()
    axes["success"].set_ylim(-0.02, 1.02)
    for place, own in enumerate(variants.values()):
        solved, trials = (sum(row[column] for row in own) for column in ("solved", "trials"))
        if trials:
            axes["all"].plot(wilson(solved, trials), [place, place], color="0.6", zorder=0)
        axes["all"].scatter(averages(own)[0], place, color="C0" if own[0]["only_steps"] else "C1")
    axes["all"].set_yticks(range(len(variants)), list(variants), fontsize="small")
    axes["all"].set(xlim=(-0.02, 1.02), xlabel="success, with its interval (Wilson)")
    axes["all"].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(study: Path, out: Path, only: list[str] = []) -> None:  # noqa: B006 - tyro reads the default
    """Run the variants one after the other; `study.csv` and `study.png` in `out` grow with them.

    Variants of the study that `study.csv` has already and that are not run now stay in it.

    Args:
        study: YAML file with base and variants, see config/study/
        out: folder of the runs and their figures
        only: these variants alone (default: all)
    """
    from runtime.config import load_yaml
    from runtime.logs import configure_logging

    configure_logging()
    plan = load_yaml(Study, study)
    for name in only:
        if name not in plan.variants:
            raise ConfigError(f"only {name!r}: {study} has the variants {', '.join(plan.variants)}")
    # All of them now: a mistake in the last must not show after hours.
    configs = {name: configuration(name, plan, out) for name in only or plan.variants}
    measured, trained = earlier_rows(out / "study.csv"), dict[str, Path]()
    for name, config in configs.items():
        own = measured[name] = run_variant(name, plan.variants[name], config, trained)
        rows = [row for variant in plan.variants for row in measured.get(variant, ())]
        write_csv(out / "study.csv", COLUMNS, rows)
        plot(rows, out / "study.png")
        success, error = averages(own)
        print(f"{name}: success {success:.2f}, action error {error:.3f}, {own[0]['flop'] / 1e12:.0f} TFLOP", flush=True)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
