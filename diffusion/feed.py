"""Batches of a pool on the device: from its own memory where the pool fits, else prefetched from the host's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion.distributed import ALONE, World
from diffusion.normalizer import Normalizer
from diffusion.pool import Pool

_SHARE = 0.5  # of the device's free memory that a pool may take
_AHEAD = 4  # batches that are prefetched


class Feed:
    """Random batches of a pool: transitions (B / size, 164), normalised, and conditions (B / size, 16).

    A resident pool is normalised once and drawn by `generator`, the one of the noise. One that is streamed is drawn by
    a generator of the CPU; `state()` is what belongs to the batches that were handed out, not to those read ahead.
    """

    def __init__(
        self,
        pool: Pool,
        normalizer: Normalizer,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device,
        world: World = ALONE,
        *,
        resident: bool | None = None,
        seed: int = 0,
    ) -> None:
        self.batch_size, self.generator, self.device, self.world = batch_size, generator, device, world
        self.resident = fits(pool.matrix.nbytes, device) if resident is None else resident
        matrix = torch.from_numpy(pool.matrix)
        self.conditions = torch.from_numpy(pool.conditions).to(device)
        task_index = torch.from_numpy(pool.task_index)
        if self.resident:
            self.data, self.task_index = normalizer.normalize_to(matrix, device), task_index.to(device)
        else:
            self.data, self.task_index = matrix, task_index
            self._rows = torch.Generator().manual_seed(seed)
            self._state = self._rows.get_state()
        self.normalizer = normalizer.to(device)

    def state(self) -> Tensor | None:
        return None if self.resident else self._state

    def load_state(self, state: Tensor | None) -> None:
        if state is not None and not self.resident:
            self._rows.set_state(state)
            self._state = state

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """So many batches."""
        return self._resident(count) if self.resident else self._streamed(count)

    def _resident(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(count):
            shape = (self.batch_size,)
            rows = torch.randint(len(self.data), shape, generator=self.generator, device=self.device)
            rows = self.world.share(rows)
            yield self.data[rows], self.conditions[self.task_index[rows]]

    def _streamed(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        ahead: queue.Queue = queue.Queue(_AHEAD)
        stop = threading.Event()
        pinned = self.device.type == "cuda"

        def put(item: object) -> None:
            while not stop.is_set():
                try:
                    ahead.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue

        def read() -> None:
            try:
                for _ in range(count):
                    if stop.is_set():
                        return
                    rows = self.world.share(torch.randint(len(self.data), (self.batch_size,), generator=self._rows))
                    parts = self.data[rows], self.task_index[rows]
                    put(([part.pin_memory() for part in parts] if pinned else parts, self._rows.get_state()))
            except BaseException as error:
                put(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            for _ in range(count):
                item = ahead.get()
                if isinstance(item, BaseException):
                    raise item
                (matrix, task_index), state = item
                matrix = matrix.to(self.device, non_blocking=True)
                conditions = self.conditions[task_index.to(self.device, non_blocking=True)]
                self._state = state
                yield self.normalizer.normalize(matrix), conditions
        finally:
            stop.set()
            reader.join()


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on the device (on a CPU the pool is there already)."""
    return device.type != "cuda" or size < _SHARE * torch.cuda.mem_get_info(device)[0]
