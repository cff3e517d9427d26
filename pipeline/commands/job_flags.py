"""What commands that run jobs share: where jobs run, what they ask for, how often they are tried, where metrics go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runtime.flags import Overrides, setting

if TYPE_CHECKING:
    from pipeline.jobs.resources import ClusterConfig, Resources, RetryConfig

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class ClusterFlags(Overrides):
    """Where jobs run, and what a site wants to be asked. A flag overrides the file of --cluster_config."""

    cluster: Literal["auto", "slurm", "local"] = setting("auto", "kind")
    """where jobs run; auto is SLURM where sbatch is found, else this machine"""
    cluster_config: Path | None = None
    """YAML file of which the part `cluster:` is read, such as config/pipeline/cluster.yaml"""
    partition: str | None = setting(None)
    """of SLURM"""
    qos: str | None = setting(None)
    """of SLURM"""
    account: str | None = setting(None)
    """of SLURM"""
    constraint: str | None = setting(None)
    """of SLURM"""
    exclude: str | None = setting(None)
    """nodes to avoid, such as node07,node12"""
    gres: str | None = setting(None)
    """instead of a plain number of GPUs, such as gpu:a100:1"""
    sbatch: tuple[str, ...] = ()
    """any other options of sbatch, such as nice=100; mem=null takes one out"""
    setup: tuple[str, ...] = setting(())
    """shell lines before each job, such as "module load cuda" """
    max_parallel: int = setting(200)
    """jobs that run at once on a cluster"""

    def config(self) -> ClusterConfig:
        """What the flags stand for. Raises `ConfigError` for a file or value that cannot be used."""
        from pipeline.jobs.resources import ClusterConfig
        from runtime.config import from_mapping, merge, read_yaml

        path = self.cluster_config
        values = merge(self.defaults(), read_yaml(path).get("cluster") or {} if path else {})
        values = merge(values, self.overrides())
        if self.sbatch:
            values = merge(values, {"sbatch": _options(self.sbatch)})
        return from_mapping(ClusterConfig, values, source=f"{path}: cluster" if path else "flags")


_WORDS = {"null": None, "true": True, "false": False}


def _options(pairs: Sequence[str]) -> dict[str, str | bool | None]:
    """Options of sbatch from `name=value`; a name alone is a switch."""
    options: dict[str, str | bool | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        options[name] = _WORDS.get(value, value) if equals else True
    return options


@dataclass(frozen=True)
class RetryFlags(Overrides):
    """How often a job is tried."""

    max_retries: int = setting(100)
    """of one job"""
    retry_delay: float = setting(300.0)
    """seconds before a job is tried again"""

    def retry(self) -> RetryConfig:
        from pipeline.jobs.resources import RetryConfig

        return RetryConfig(max_retries=self.max_retries, retry_delay=self.retry_delay)


@dataclass(frozen=True)
class LoopRetryFlags(RetryFlags):
    """How often a job is tried, and how much more it then asks for."""

    retry_memory_multiplier: float = setting(1.5)
    """more memory after a job ran out of it"""
    retry_time_multiplier: float = setting(1.5)
    """more time after a job ran out of it"""
    max_memory_gb: int = setting(400)
    """cap on a job's memory"""
    max_time_hours: float = setting(72.0)
    """cap on a job's time"""


@dataclass(frozen=True)
class JobFlags(RetryFlags):
    """What each job asks for, and how often it is tried."""

    memory: int = 32
    """GB per job"""
    time: float = 24
    """hours per job"""
    cpus: int = 8
    """per job"""
    gpus: int = 1
    """per job"""

    def resources(self) -> Resources:
        from pipeline.jobs.resources import Resources

        return Resources(memory_gb=self.memory, hours=self.time, cpus=self.cpus, gpus=self.gpus)


@dataclass(frozen=True)
class WandbFlags:
    """Metrics on Weights & Biases, beside those in files."""

    wandb_project: str | None = None
    """send metrics to this W&B project as well"""
    wandb: Literal["offline", "online"] | None = None
    """offline (uploaded later by wandb sync) or online; default: as ICDG_WANDB says, else offline"""

    def use(self) -> None:
        from runtime.wandb_sink import use_wandb

        use_wandb(self.wandb_project, self.wandb)


@dataclass(frozen=True)
class PlaceFlags:
    """Where what jobs write goes."""

    results_path: Path | None = None
    """where tables go; default from config/paths.yaml"""
    logs_path: Path | None = None
    """where job logs go; default from config/paths.yaml"""

    def results(self) -> Path:
        from runtime.paths import machine_settings

        return self.results_path or machine_settings().results_path

    def logs(self) -> Path:
        from runtime.paths import machine_settings

        return self.logs_path or machine_settings().logs_path
