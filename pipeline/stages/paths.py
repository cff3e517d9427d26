"""Where the files of a run are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envs.family import family_of
from offline_compositional_rl_datasets.samples import SAMPLES_FILE
from offline_compositional_rl_datasets.task import Task

RESULT_FILE = "result.json"
QUALITY_FILE = "quality.json"
PHYSICS_FILE = "physics.json"


def model_folder(results_path: Path, iteration: int, model_name: str) -> Path:
    return Path(results_path) / f"augmented_{iteration}" / "diffusion" / model_name


def model_file(results_path: Path, iteration: int, model_name: str, steps: int) -> Path:
    return model_folder(results_path, iteration, model_name) / f"model-{steps}.pt"


def generator_file(checkpoint: Path, number: int) -> Path:
    """The checkpoint of generator `number` of several, whose first one is `checkpoint`."""
    return checkpoint if number == 0 else checkpoint.parent / f"generator{number}" / checkpoint.name


def marginals_file(checkpoint: Path) -> Path:
    """Quantiles of the data that trained a generator, beside it."""
    return checkpoint.with_name("marginals.npz")


def samples_file(results_path: Path, iteration: int, model_name: str, task: Task) -> Path:
    return model_folder(results_path, iteration, model_name) / task.name / SAMPLES_FILE


def policy_folder(
    results_path: Path, iteration: int, model_name: str, task: Task, seed: int, *, practised: bool = False
) -> Path:
    name = f"{task.name}_RLseed{seed}{'_practised' if practised else ''}"
    return Path(results_path) / f"augmented_{iteration}" / "policies" / model_name / name


def expert_files(data_path: Path, dataset_type: str, tasks: Sequence[Task]) -> list[Path]:
    """The files of all tasks; raises `DataError` for the first that is missing."""
    return [family_of(task).data_file(data_path, dataset_type, task) for task in tasks]


def practised_file(samples: Path) -> Path:
    """The set that practice made of a generated one."""
    return samples.parent / "practice" / samples.name
