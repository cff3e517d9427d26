"""What sbatch is asked for, and what its complaints mean."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from pipeline.jobs.attempts import Attempt
from pipeline.jobs.failures import Cause, Failure
from pipeline.jobs.memory_request import MemoryRequest, memory_request
from pipeline.jobs.resources import ClusterConfig, Resources
from runtime.paths import machine_settings
from runtime.provenance import provenance

MAX_TIMEOUTS = 3  # requeues at the limit before more time is asked for
_AWAY = re.compile(r"[Uu]nable to contact|[Ss]ocket timed out|[Cc]onnection (refused|timed out)|timed out after")
_UNCONFIGURED = re.compile(r"[Cc]ould not establish a configuration source|resolve_ctls_from_dns_srv")
_OF_SUBMITIT = frozenset(submitit.SlurmExecutor._valid_parameters())


@dataclass(frozen=True)
class Sbatch:
    """How jobs are asked for on a site: `folder` gets one folder per job, `program` is the copy that they run."""

    cluster: ClusterConfig
    folder: Path
    program: Path

    def memory(self, resources: Resources) -> MemoryRequest:
        return memory_request(sbatch_options(self.cluster), self.cluster.gres, resources)

    def executor(self, attempt: Attempt, name: str, ticket: str, parallel: int) -> submitit.SlurmExecutor:
        """What asks sbatch for a job (or an array of equal ones), set up as the site and the attempt want it."""
        cluster, resources = self.cluster, attempt.resources
        exclude = ",".join(filter(None, [cluster.exclude, *attempt.tries.exclude]))
        parameters: dict[str, Any] = {
            "job_name": name,
            "time": minutes(resources),
            "mem": None,  # sbatch takes one option of memory alone
            "cpus_per_task": max(1, resources.cpus),
            "gpus_per_node": (resources.gpus or None) if cluster.gres is None else None,
            "gres": cluster.gres if resources.gpus else None,
            "partition": cluster.partition,
            "qos": cluster.qos,
            "account": cluster.account,
            "constraint": cluster.constraint,
            "exclude": exclude or None,
            "wckey": None,  # submitit's own, which sites that know their keys refuse
            "comment": ticket,
            "array_parallelism": parallel,
            "signal_delay_s": cluster.signal_seconds,
            "stderr_to_stdout": True,
            "setup": [*self._exports(), *cluster.setup],
        }
        # The folder that a module is looked for in first is the current one: it has to be the copy.
        options: dict[str, Any] = {"requeue": True, "chdir": str(self.program), **sbatch_options(cluster)}
        memory = self.memory(resources)
        if memory.own:
            parameters["mem"] = memory.value
        else:
            options[memory.name] = memory.of(resources.memory_gb)
        parameters |= {option: None for option, value in options.items() if value is None and option in _OF_SUBMITIT}
        parameters["additional_parameters"] = {option: v for option, v in options.items() if v is not None}
        executor = submitit.SlurmExecutor(self.folder / "%j", max_num_timeout=MAX_TIMEOUTS)
        executor.update_parameters(**parameters)
        return executor

    def _exports(self) -> list[str]:
        """Shell lines that give a job the program's copy and this machine's settings, whatever is in their values."""
        # What this process finds modules in is found by jobs too, which run in another folder.
        path = [str(self.program), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        settings = {
            "PYTHONPATH": os.pathsep.join(str(Path(part).absolute()) for part in path),
            "ICDG_CACHE_PATH": str(machine_settings().cache_path),
            "ICDG_COMMIT": provenance()["commit"],
        }
        return [
            # Where sbatch is told to export nothing, srun would do the same and drop what follows.
            "unset SLURM_EXPORT_ENV",
            # srun may take one core unless it is told, and a site that binds no process shows it all of the node's.
            'cores="${SLURM_CPUS_PER_TASK:-}"',
            '[ -z "$cores" ] || export SRUN_CPUS_PER_TASK="$cores" ICDG_CPUS="$cores"',
            *(f"export {key}={shlex.quote(value)}" for key, value in settings.items()),
        ]


def sbatch_options(cluster: ClusterConfig) -> dict[str, Any]:
    """The site's own options as submitit spells them; None for those that are not to be given to sbatch at all."""
    return {name.replace("-", "_"): None if value is False else value for name, value in cluster.sbatch.items()}


def asks_for_gpus(cluster: ClusterConfig) -> bool:
    """Whether jobs that are to have GPUs ask for them: a site may have taken the option out, and given no other."""
    options = sbatch_options(cluster)
    ours = "gpus_per_node" if cluster.gres is None else "gres"
    others = ("gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket", "gres", "tres_per_job", "tres_per_task")
    return options.get(ours, True) is not None or any(options.get(name) for name in others)


def minutes(resources: Resources) -> int:
    return max(1, round(resources.hours * 60))


def refusal(message: str) -> Failure:
    """What sbatch's complaint means: a wrong partition stays wrong, a controller that is away comes back."""
    comes_back = _AWAY.search(message) or _UNCONFIGURED.search(message)  # a name service that is away for a while
    return Failure(Cause.SYSTEM if comes_back else Cause.REFUSED, message)
