"""Configuration of the iterative loop: one YAML file, overridden by flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corl.config import PolicyConfig
from corl.practice import PracticeConfig
from diffusion.config import RUNTIME_SETTINGS, QualityConfig, SamplerConfig, TrainConfig
from diffusion.denoisers import DENOISERS, DenoiserConfig, denoiser_named
from envs.recording import CollectConfig
from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig
from runtime.checks import distinct, expect_range
from runtime.config import dict_without, from_mapping, given, merge, read_yaml
from runtime.device import expect_device_name
from runtime.errors import ConfigError
from runtime.paths import machine_settings
from runtime.seeds import LARGEST_SEED


@dataclass(frozen=True)
class StageResources:
    """Requests per stage; defaults are those of the published code."""

    diffusion: Resources = Resources(memory_gb=400, hours=24, cpus=8)
    generation: Resources = Resources(memory_gb=50, hours=48, cpus=8)
    policy: Resources = Resources(memory_gb=16, hours=24, cpus=10)
    practice: Resources = Resources(memory_gb=16, hours=24, cpus=10)

    def of(self, stage: str) -> Resources:
        """Of a stage by its name in `PipelineConfig.stages`: policies ask for the same whatever set they learn from."""
        return self.policy if stage == "practised_policy" else getattr(self, stage)


@dataclass(frozen=True)
class PathConfig:
    """Folders of this run; what is not given comes from `config/paths.yaml`. Relative to the current directory."""

    data_path: Path | None = None
    results_path: Path | None = None
    splits_path: Path | None = None  # by itself the family's published splits, if it has any
    logs_path: Path | None = None

    def resolved(self) -> Paths:
        machine = machine_settings()
        return Paths(
            data_path=_absolute(self.data_path or machine.data_path),
            results_path=_absolute(self.results_path or machine.results_path),
            splits_path=None if self.splits_path is None else _absolute(self.splits_path),
            logs_path=_absolute(self.logs_path or machine.logs_path),
        )


@dataclass(frozen=True)
class Paths:
    """Absolute folders of a run. Without `splits_path` its splits are the family's."""

    data_path: Path
    results_path: Path
    splits_path: Path | None
    logs_path: Path


def _absolute(path: Path) -> Path:
    return Path(path).expanduser().absolute()


@dataclass(frozen=True)
class PipelineConfig:
    """Everything that decides a run's results, and where and how its jobs run.

    `family` is that of the tasks (`envs.family`): `composuite`, or the place of one of the user's own, whose module is
    imported.
    `generators` are trained in every iteration, each with a seed of its own: states are drawn by all of them, and what
    follows is what they expect on average (`diffusion.ensemble`; with `order: state_first` and `rest: mean`).
    One job draws the sets of `generation_group` tasks, one after another: start-up is paid once.
    `collect`, when given, records expert data that is missing with the scripted experts. With `ground` every generated
    transition is made exact by the simulator (`pipeline.stages.grounding`). With `practice.rounds` the tasks that their
    generated sets do not solve are practised on in the simulator, and validated once more (`corl.practice`).
    """

    family: str = "composuite"
    max_iterations: int = 5
    denoiser: str = "dit"
    num_train: int = 14
    experiment_type: str = "component-wise"
    task_list_seed: int = 0
    diffusion_seed: int = 0
    curriculum_seed: int = 0
    dataset_type: str = "expert"
    success_threshold: float = 0.8
    threshold_reduction_amount: float = 0.1
    threshold_reduction_cycle: int = 1
    min_threshold: float = 0.5
    rl_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    middle_seeds: tuple[int, ...] = (0,)
    generators: int = 1
    generation_group: int = 1
    network: DenoiserConfig = field(default_factory=DenoiserConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    sampling: SamplerConfig = field(default_factory=SamplerConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    practice: PracticeConfig = field(default_factory=PracticeConfig)
    ground: bool = False
    collect: CollectConfig | None = None
    device: str = "auto"
    paths: PathConfig = field(default_factory=PathConfig)
    resources: StageResources = field(default_factory=StageResources)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)

    def __post_init__(self) -> None:
        kind = denoiser_named(self.denoiser).network.kind
        if self.network.kind != kind:
            raise ConfigError(f"denoiser {self.denoiser!r}: its network has the kind {kind}, not {self.network.kind}")
        expect_range(self, "max_iterations", "num_train", "threshold_reduction_cycle", least=1)
        expect_range(self, "generators", "generation_group", least=1)
        if self.generators > 1 and (self.network.order != "state_first" or self.sampling.rest != "mean"):
            raise ConfigError(f"generators {self.generators}: expected order state_first of network and rest mean")
        expect_range(self, "success_threshold", "min_threshold", "threshold_reduction_amount", most=1)
        distinct("rl_seeds", self.rl_seeds)
        distinct("middle_seeds", self.middle_seeds)
        seeds = ("task_list_seed", "diffusion_seed", "curriculum_seed", "rl_seeds", "middle_seeds")
        expect_range(self, *seeds, most=LARGEST_SEED)
        if self.min_threshold > self.success_threshold:
            raise ConfigError(f"min_threshold {self.min_threshold}: expected at most success_threshold")
        expect_device_name(self.device)

    def model_name(self, iteration: int) -> str:
        """MODEL of the published folder names. Raises `ConfigError` for an iteration before the first."""
        if iteration < 0:
            raise ConfigError(f"--diffusion_training_run {iteration}: expected 0 or more")
        return f"{self.run_name}_{iteration}"

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of an iteration's stages, in their order."""
        practised = ("practice", "practised_policy") if self.practice.rounds else ()
        return ("diffusion", "generation", "policy", *practised)

    @property
    def run_name(self) -> str:
        return f"{self.denoiser}_tasklist{self.task_list_seed}_train{self.num_train}_diffusionseed{self.diffusion_seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """The part that decides results: a results folder made with another identity is refused.

        How many iterations to run is not in it: a finished run can be continued with more of them.
        """
        ignored = ("paths", "resources", "cluster", "retry", "max_iterations", "device", "generation_group")
        training = dict_without(self.training, RUNTIME_SETTINGS)
        # What a run does not use does not set it apart from those that were begun before it could be used.
        used = {
            "practice": self.practice.rounds,
            "ground": self.ground,
            "generators": self.generators > 1,
            "family": self.family != "composuite",
        }
        unused = [name for name, is_used in used.items() if not is_used]
        return dict_without(self, (*ignored, *unused)) | {"policy": self.policy.identity, "training": training}


def load_pipeline_config(
    path: Path | None, overrides: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> PipelineConfig:
    """The configuration of a YAML (or JSON) file with those flags laid over it that are not None.

    `defaults` are those of an entry point and lie under the file; under them lie the sizes of the network that the
    denoiser's name stands for, and its settings of training.
    """
    source = "flags" if path is None else str(path)
    values = merge(defaults or {}, {} if path is None else read_yaml(path))
    values = _renamed(merge(values, given(overrides)), source)
    preset = DENOISERS.get(str(values.get("denoiser", PipelineConfig.denoiser)))
    if preset is not None:
        values = merge(preset.settings(), values)
    return from_mapping(PipelineConfig, values, source=source)


def _renamed(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings under today's names: those of runs that were begun under older ones still go on."""
    paths = values.get("paths")
    if not isinstance(paths, Mapping) or "tasks_path" not in paths:
        return dict(values)
    if paths.get("splits_path") is not None and paths["tasks_path"] is not None:
        raise ConfigError(f"{source}: paths has splits_path and its older name tasks_path, expected one of them")
    others = {name: path for name, path in paths.items() if name != "tasks_path"}
    return {**values, "paths": {"splits_path": paths["tasks_path"]} | others}
