"""Several processes, one per GPU, that train one network (torchrun's environment variables, or `spawn` here)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from runtime import interrupt


@dataclass(frozen=True)
class World:
    """This process' place among those that train together; alone it is (0, 1)."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> World:
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """A GPU of its own for each process of a machine."""
        if device.type == "cuda" and self.size > 1:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
        return device

    def share(self, values: Tensor) -> Tensor:
        """This process' part of a batch (B, ...): every `size`-th row."""
        return values if self.size == 1 else values[self.rank :: self.size]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def mean(self, value: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any of the processes; all get the same answer."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Within, the processes can talk to one another; all leave together."""
        if self.size == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()


ALONE = World()


def spawn(function: Callable[..., None], size: int, *arguments: Any) -> None:
    """Run function(*arguments) in `size` processes of this machine that find each other by the environment.

    A request to stop is passed on to them. Raises `Interrupted` when they have left.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = torch.multiprocessing.spawn(_enter, (size, port, function, arguments), nprocs=size, join=False)
    passed_on = False
    try:
        while not children.join(timeout=0.5):
            if interrupt.requested() and not passed_on:
                passed_on = True
                for process in children.processes:
                    process.terminate()
    except torch.multiprocessing.ProcessExitedException:
        if not passed_on:  # else one was asked before it could answer
            raise
    if passed_on:
        raise interrupt.Interrupted


def _enter(rank: int, size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
    # A batch system may signal this process as well as its parent.
    with interrupt.honoured(signal.SIGTERM), contextlib.suppress(interrupt.Interrupted):
        function(*arguments)
