"""The loop's `cluster:` settings as flags of the commands that run jobs without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.loop.config import ClusterConfig

# Worker processes import their parent's script: the rest is imported where it is needed.


@dataclass(frozen=True)
class ClusterFlags:
    """Where jobs run, and what a site wants to be asked. A flag overrides the file of --cluster_config."""

    cluster: Literal["auto", "slurm", "local"] | None = None
    """where jobs run; auto (the default) is SLURM where sbatch is found, else this machine"""
    cluster_config: Path | None = None
    """YAML file of which the part `cluster:` is read, such as config/pipeline/cluster.yaml"""
    partition: str | None = None
    """of SLURM"""
    qos: str | None = None
    """of SLURM"""
    account: str | None = None
    """of SLURM"""
    constraint: str | None = None
    """of SLURM"""
    exclude: str | None = None
    """nodes to avoid, such as node07,node12"""
    gres: str | None = None
    """instead of a plain number of GPUs, such as gpu:a100:1"""
    sbatch: tuple[str, ...] = ()
    """any other options of sbatch, such as nice=100; mem=null takes one out"""
    setup: tuple[str, ...] = ()
    """shell lines before each job, such as "module load cuda" """
    max_parallel: int | None = None
    """jobs that run at once on a cluster [200]"""

    def config(self) -> ClusterConfig:
        """What the flags stand for. Raises `ConfigError` for a file or value that cannot be used."""
        from pipeline.loop.config import ClusterConfig
        from runtime.config import from_mapping, given, merge, read_yaml

        path = self.cluster_config
        flags = given(
            {
                "kind": self.cluster,
                "partition": self.partition,
                "qos": self.qos,
                "account": self.account,
                "constraint": self.constraint,
                "exclude": self.exclude,
                "gres": self.gres,
                "max_parallel": self.max_parallel,
                "setup": self.setup or None,
            }
        )
        values = merge(read_yaml(path).get("cluster") or {} if path else {}, flags)
        if self.sbatch:
            values = merge(values, {"sbatch": _options(self.sbatch)})
        return from_mapping(ClusterConfig, values, source=f"{path}: cluster" if path else "flags")


DEFAULT = ClusterFlags()

_WORDS = {"null": None, "true": True, "false": False}


def _options(pairs: Sequence[str]) -> dict[str, str | bool | None]:
    """Options of sbatch from `name=value`; a name alone is a switch."""
    options: dict[str, str | bool | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        options[name] = _WORDS.get(value, value) if equals else True
    return options
