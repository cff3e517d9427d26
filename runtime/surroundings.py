"""What a process' environment says of the batch job or launcher around it, which is not for what it starts.

A loop may be started within an allocation, in a container or by a launcher. Its variables describe that one: read by
sbatch they become options, read by a job they say that it is part of another one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_ALLOCATION = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "PMI")
_FORMATS = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")  # options of the commands that are asked
_LAUNCHER = ("TORCHELASTIC_", "OMPI_COMM_")
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_RANKS = (*RANK_VARIABLES, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
          "ROLE_WORLD_SIZE")  # fmt: skip
_SITE = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")  # where the cluster is, and who asks


def of_another_job(name: str) -> bool:
    """Whether a variable says something of the job or launcher around this process."""
    return name not in _SITE and (name.startswith((*_ALLOCATION, *_FORMATS, *_LAUNCHER)) or name in _RANKS)


@contextlib.contextmanager
def left_out(*others: str) -> Iterator[None]:
    """Within, `os.environ` has neither the variables `of_another_job` nor `others`, for what is started meanwhile."""
    gone = {name: value for name, value in os.environ.items() if name in others or of_another_job(name)}
    for name in gone:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(gone)
