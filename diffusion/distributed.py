"""Several processes, one per GPU, that train one network: started by torchrun, by srun, or by `spawn` here."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException
from torch.multiprocessing.spawn import spawn as spawn_processes
from torch.nn.parallel import DistributedDataParallel

from runtime import interrupt
from runtime.errors import ConfigError, JobError, UserError, one_line
from runtime.surroundings import RANK_VARIABLES

log = logging.getLogger(__name__)

T = TypeVar("T")

_CPU = torch.device("cpu")
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """This process' place among those that train together, alone (0, 1), and the device that it trains on."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @classmethod
    def of_environment(cls, device: torch.device = _CPU) -> World:
        """The place that torchrun, srun or `spawn` gave this process; alone where none of them started it.

        Of GPUs each process of a machine has one of its own.
        Containers, notebooks and other programs leave rank variables behind, which are not a launcher's then.
        Raises `ConfigError` where a launcher started this process and its variables are not whole.
        """
        given = {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}
        if not given:
            return cls(device=device)
        launcher = _launcher(given)
        if launcher is None:
            if not cls._told:
                cls._told = True
                names = ", ".join(f"{name}={value}" for name, value in given.items())
                log.warning("%s: not used, since neither torchrun nor srun started this process", names)
            return cls(device=device)
        missing = [name for name in RANK_VARIABLES if name not in given]
        if missing:
            raise ConfigError(
                f"{', '.join(f'{name}={value}' for name, value in given.items())} without {', '.join(missing)}: "
                f"{launcher} started this process, expected all of {', '.join(RANK_VARIABLES)} or none"
            )
        rank, size = given["RANK"], given["WORLD_SIZE"]
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise ConfigError(f"RANK={rank}, WORLD_SIZE={size}: expected a rank from 0 to one below WORLD_SIZE")
        if device.type == "cuda" and int(size) > 1:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        return cls(int(rank), int(size), device)

    _told: ClassVar[bool] = False

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shard(self, values: Tensor) -> Tensor:
        """This process' part of a batch (B, ...): every `size`-th row."""
        return values if self.size == 1 else values[self.rank :: self.size]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def mean(self, value: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of the processes; all get the same answer."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank. Waits for the slowest, as when one of them reads files for hours."""
        if self.size == 1:
            return [value]
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=group)
        dist.destroy_process_group(group)
        return values

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Within, the processes can talk to one another; all leave together."""
        if self.size == 1 or dist.is_initialized():  # alone, or they are joined already
            yield
            return
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        log.info("process %d of %d: waiting at %s until all have come", self.rank, self.size, where)
        try:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise JobError(f"not all of {self.size} processes met at {where} ({one_line(error)})") from error
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()


ALONE = World()

_spawned = False  # by `spawn`


def _launcher(given: Mapping[str, str]) -> str | None:
    """What started this process as one of several, and so is to be believed in its rank variables."""
    if _spawned:
        return "spawn"
    if dist.is_torchelastic_launched():
        return "torchrun"
    # Every job of a cluster is started by srun: a job of one process has not got these variables from it.
    step = os.environ.get("SLURM_PROCID"), os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS"))
    several = step[0] is not None and step[1] not in (None, "1")
    agree = given.get("RANK", step[0]) == step[0] and given.get("WORLD_SIZE", step[1]) == step[1]
    return "srun" if several and agree else None


def spawn(function: Callable[..., None], size: int, *arguments: Any) -> None:
    """Run function(*arguments) in `size` processes of this machine that find each other by the environment.

    A request to stop is passed on to them. Raises `Interrupted` when they have left, and the `UserError` that one of
    them raised.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    children = spawn_processes(_enter, (size, port, function, arguments, failures), nprocs=size, join=False)
    passed_on = False
    try:
        while not children.join(timeout=0.5):
            if interrupt.requested() and not passed_on:
                passed_on = True
                for process in children.processes:
                    process.terminate()
    except ProcessExitedException:
        if not passed_on:  # else one was asked before it could answer
            if not failures.empty():
                raise failures.get() from None
            raise
    if passed_on:
        raise interrupt.Interrupted


def _enter(
    rank: int,
    size: int,
    port: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    failures: SimpleQueue[UserError],
) -> None:
    global _spawned
    _spawned = True
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"}
    # A batch system may signal this process as well as its parent.
    with interrupt.honoured(signal.SIGTERM), contextlib.suppress(interrupt.Interrupted):
        try:
            function(*arguments)
        except UserError as error:
            failures.put(error)
            raise SystemExit(1) from error
