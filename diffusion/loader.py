"""Batches of a pool on the device: from its own memory where the pool fits, else prefetched from the host's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion.distributed import ALONE, World
from diffusion.normalizer import Normalizer
from diffusion.pool import Pool
from runtime.seeds import derive_seed

_SHARE = 0.5  # of the device's free memory that a pool may take
_AHEAD = 4  # batches that are prefetched


class BatchLoader:
    """Random batches of a pool: transitions (B / size, 164), normalised, and conditions (B / size, 16).

    The rows of a step follow from `seed` and the step alone: they are the same wherever the pool is, and in a run that
    is continued. A resident pool is normalised once, of one that is streamed each batch; the numbers are the same.
    """

    def __init__(
        self,
        pool: Pool,
        normalizer: Normalizer,
        batch_size: int,
        world: World = ALONE,
        *,
        seed: int,
        resident: bool | None = None,
    ) -> None:
        device = world.device
        self.batch_size, self.device, self.world, self.seed = batch_size, device, world, seed
        self.resident = fits(pool.matrix.nbytes, device) if resident is None else resident
        matrix = torch.from_numpy(pool.matrix)
        self.conditions = torch.from_numpy(pool.conditions).to(device)
        task_index = torch.from_numpy(pool.task_index)
        if self.resident:
            self.data, self.task_index = normalizer.normalize_to(matrix, device), task_index.to(device)
        else:
            self.data, self.task_index = matrix, task_index
        self.normalizer = normalizer.to(device)
        self._pinned = device.type == "cuda"
        self._rows = torch.Generator()

    def batches(self, first: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the steps from `first` to before `stop`."""
        return self._resident(first, stop) if self.resident else self._streamed(first, stop)

    def rows(self, step: int) -> Tensor:
        """(B / size,) this process' rows of a step, on the CPU."""
        self._rows.manual_seed(derive_seed("rows", self.seed, step))
        return self.world.shard(torch.randint(len(self.data), (self.batch_size,), generator=self._rows))

    def _resident(self, first: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(first, stop):
            rows = self.rows(step)
            if self._pinned:  # or the copy would wait for the device
                rows = rows.pin_memory()
            rows = rows.to(self.device, non_blocking=True)
            yield self.data[rows], self.conditions[self.task_index[rows]]

    def _streamed(self, first: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        ahead: queue.Queue[Sequence[Tensor] | BaseException] = queue.Queue(_AHEAD)
        ended = threading.Event()

        def put(item: Sequence[Tensor] | BaseException) -> None:
            while not ended.is_set():
                try:
                    ahead.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue

        def read() -> None:
            try:
                for step in range(first, stop):
                    if ended.is_set():
                        return
                    rows = self.rows(step)
                    parts = self.data[rows], self.task_index[rows]
                    put([part.pin_memory() for part in parts] if self._pinned else parts)
            except BaseException as error:
                put(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            for _ in range(first, stop):
                item = ahead.get()
                if isinstance(item, BaseException):
                    raise item
                matrix, task_index = item
                matrix = matrix.to(self.device, non_blocking=True)
                conditions = self.conditions[task_index.to(self.device, non_blocking=True)]
                yield self.normalizer.normalize(matrix), conditions
        finally:
            ended.set()
            reader.join()


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on the device (on a CPU the pool is there already)."""
    return device.type != "cuda" or size < _SHARE * torch.cuda.mem_get_info(device)[0]
