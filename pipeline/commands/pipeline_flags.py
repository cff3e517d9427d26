"""Flags that are laid over the configuration of the loop: those of the loop itself and of its stages by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from runtime.flags import ConfigFlags, alias, setting

if TYPE_CHECKING:
    from pipeline.loop.config import PipelineConfig

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class PipelineFlags(ConfigFlags):
    """Which generator, and where its results are."""

    config: Annotated[Path | None, alias("config_file")] = None
    """YAML file with any part of PipelineConfig, see config/pipeline/"""
    denoiser: str = setting("dit")
    """the generator's network"""
    num_train: int = setting(14)
    """the first so many train tasks of the split give expert data"""
    task_list_seed: int = setting(0)
    """which split file"""
    diffusion_seed: int = setting(0)
    """seed of the generator's training and sampling"""
    results_path: Annotated[Path | None, alias("base_results_folder")] = setting(None, "paths.results_path")
    """where results go; default from config/paths.yaml"""

    def pipeline_config(
        self, further: Mapping[str, Any] | None = None, under: Mapping[str, Any] | None = None
    ) -> PipelineConfig:
        """The configuration, with the settings `further` of other flags laid over it and `under` lying under its file.

        Raises `ConfigError` naming the file, or flags, and the key that cannot be used.
        """
        from pipeline.loop.config import load_pipeline_config
        from runtime.config import merge

        return load_pipeline_config(
            self.config, merge(self.overrides(), further or {}), merge(under or {}, self.defaults())
        )


@dataclass(frozen=True)
class ByHandFlags(PipelineFlags):
    """Which generator, and where its results are; what is not given comes from --config."""

    diffusion_training_run: int = 0
    """the iteration, part of the generator's name"""
    device: str = setting("auto")
    """auto, cpu or cuda[:N]"""


@dataclass(frozen=True)
class GeneratorFlags(ByHandFlags):
    """Which generator, for which tasks, and where its results are; what is not given comes from --config."""

    diffusion_seed: Annotated[int, alias("seed")] = setting(0)
    """seed of the generator's training and sampling"""
    experiment_type: str = setting("component-wise")
    """kind of split"""
    splits_path: Annotated[Path | None, alias("tasks_path", "task_list_path")] = setting(None, "paths.splits_path")
    """folder of the splits; default: the family's published ones"""


@dataclass(frozen=True)
class TrainGeneratorFlags(GeneratorFlags):
    """Which generator, which expert data, and where results go; what is not given comes from --config."""

    dataset_type: str = setting("expert")
    """first part of the data folder's name"""
    data_path: Annotated[Path | None, alias("base_data_path")] = setting(None, "paths.data_path")
    """expert data; default from config/paths.yaml"""


@dataclass(frozen=True)
class PractiseFlags(GeneratorFlags):
    """Which generator, how long it is practised, and where results are; what is not given comes from --config."""

    practice_rounds: Annotated[int, alias("rounds")] = setting(0, "practice.rounds")
    """of practice"""
    practice_control_steps: Annotated[int, alias("control_steps")] = setting(100_000, "practice.control_steps")
    """at most so many in the simulator"""


@dataclass(frozen=True)
class TrainPolicyFlags(ByHandFlags):
    """How a policy is trained, on whose data; what is not given comes from --config."""

    data_path: Annotated[Path | None, alias("base_agent_data_path")] = setting(None, "paths.data_path")
    """recorded data; default from config/paths.yaml"""
    algorithm: str = setting("td3_bc", "policy.algorithm")
    """td3_bc, iql or bc"""
    max_timesteps: int = setting(50_000, "policy.max_timesteps")
    """gradient steps"""
    batch_size: int = setting(1024, "policy.batch_size")
    """transitions per step"""
    n_episodes: int = setting(10, "policy.n_episodes")
    """episodes per evaluation"""


@dataclass(frozen=True)
class LoopFlags(PipelineFlags):
    """What a run does."""

    max_iterations: int = setting(5)
    """iterations 0 .. max-1"""
    curriculum_seed: int = setting(0)
    """seed of the order in which source sets are used from iteration 5 on"""
    success_threshold: float = setting(0.8)
    """a generated set is good if its policy's success is above this"""
    threshold_reduction_amount: float = setting(0.1)
    """how far the threshold is lowered when nothing is good"""
    threshold_reduction_cycle: int = setting(1)
    """after so many iterations in a row without a good set"""
    min_threshold: float = setting(0.5)
    """never below this"""
    practice_rounds: int = setting(0, "practice.rounds")
    """of practice in the simulator on tasks that their generated sets do not solve; 0: none"""
    practice_control_steps: int = setting(100_000, "practice.control_steps")
    """at most so many a task and iteration"""
    cluster: Literal["auto", "slurm", "local"] = setting("auto", "cluster.kind")
    """where jobs run; auto is SLURM where sbatch is found, else this machine"""
    data_path: Path | None = setting(None, "paths.data_path")
    """expert data; default from config/paths.yaml"""
    logs_path: Path | None = setting(None, "paths.logs_path")
    """where job logs and tables go; default from config/paths.yaml"""
