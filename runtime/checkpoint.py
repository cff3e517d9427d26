"""Torch checkpoints as files."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from runtime.atomic import atomic_path, verify
from runtime.errors import DataError, one_line
from runtime.seeds import derive_seed

N = TypeVar("N", bound=nn.Module)

log = logging.getLogger(__name__)

_MOST_OF_REASON = 200  # characters: torch explains at length why it does not trust a file


def save_torch(value: Any, path: Path) -> None:
    """Write `value` as `torch.save` does, but by a plain write: a full disk is an `OSError`, not a fault of torch."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


def replace_torch(value: Any, path: Path) -> None:
    """Write `value` as `save_torch` does to a file that is always a whole one: the old or the new."""
    with atomic_path(path) as temporary:
        save_torch(value, temporary)


def on_cpu(value: Any) -> Any:
    """A copy on the CPU of all tensors in a nest of mappings and lists."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [on_cpu(item) for item in value]
    return value


class BackgroundSaver:
    """Writes checkpoints to one path while the computation within `with` goes on; the file is always a whole one.

    What a write meets (a full disk) is raised by the next `save` or `wait`, or at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    @property
    def busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def save(self, value: Any) -> None:
        """Copy `value` as it is now and begin to write it, after what is being written still."""
        self.wait()
        self._writing = self._pool.submit(replace_torch, on_cpu(value), self.path)

    def wait(self) -> None:
        """Until nothing is being written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def expect_finite(values: Any, what: str) -> None:
    """Raises `DataError` unless all numbers of all tensors in a nest of mappings and lists are finite.

    `what` begins the message.
    """
    flags: dict[torch.device, list[Tensor]] = {}
    for tensor in _tensors(values):
        if tensor.is_floating_point():
            flags.setdefault(tensor.device, []).append(tensor.isfinite().all())
    # One answer of each device: asking for every tensor would stop it as often.
    if not all(bool(torch.stack(own).all()) for own in flags.values()):
        raise DataError(f"{what} is not finite: training has diverged; learn with a smaller learning rate")


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for value in values:
            yield from _tensors(value)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict` that looks at sizes. Raises `DataError` where they are not its parameters'."""
    optimizer.load_state_dict(dict(state))
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape not in (parameter.shape, torch.Size(())):
                raise DataError(
                    f"an optimiser's {name} has the shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
                )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_torch` wrote, on the CPU. Raises `DataError` for a missing, damaged or foreign file."""
    verify(path)
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises whatever its unpickler meets
        raise DataError(f"{path}: not a readable checkpoint ({one_line(error)[:_MOST_OF_REASON]})") from error
    if not isinstance(contents, dict):
        raise DataError(f"{path}: holds a {type(contents).__name__}, expected the mapping of a checkpoint")
    return contents


def entry(contents: Mapping[str, Any], name: str, kind: type | tuple[type, ...], path: Path) -> Any:
    """What stands under `name` in a checkpoint. Raises `DataError` unless it is there and of the kind."""
    if name not in contents:
        raise DataError(f"{path}: lacks {name}")
    value = contents[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(each.__name__ for each in kinds)
        raise DataError(f"{path}: {name} is a {type(value).__name__}, expected {expected}")
    return value


def vector(contents: Mapping[str, Any], name: str, size: int, path: Path, *, infinite: bool = False) -> Tensor:
    """The numbers (size,) float32 under `name`, `infinite` ones too if asked. Raises `DataError` for anything else."""
    values: Tensor = entry(contents, name, Tensor, path)
    if values.shape != (size,) or not _is_real(values):
        raise DataError(f"{path}: {name} is {_looks(values)}, expected real numbers of shape ({size},)")
    if values.isnan().any() or not (infinite or values.isfinite().all()):
        raise DataError(f"{path}: {name} has numbers that are not finite")
    return values.float()


def build_within(path: Path, make: Callable[[], N]) -> N:
    """The network that `make` gives.

    Raises `DataError`, before room is made for it, where it has more weights than the checkpoint has bytes.
    """
    try:
        with torch.device("meta"):
            numbers = sum(parameter.numel() for parameter in make().parameters())
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes that are no sizes
        raise DataError(f"{path}: claims a network that cannot be ({one_line(error)[:_MOST_OF_REASON]})") from error
    size = path.stat().st_size
    if numbers > size:
        raise DataError(f"{path}: claims a network of {numbers:,} weights in a file of {size:,} bytes")
    return make()


def load_weights(network: nn.Module, weights: Any, path: Path, name: str) -> None:
    """Give a network the state dict called `name`. Raises `DataError` unless names, shapes and kinds are its own."""
    if not isinstance(weights, Mapping):
        raise DataError(f"{path}: {name} is a {type(weights).__name__}, expected the weights of a network")
    own = network.state_dict()
    for key, tensor in own.items():
        given = weights.get(key)
        if not isinstance(given, Tensor) or given.shape != tensor.shape or not _is_real(given):
            found = "nothing" if given is None else _looks(given)
            raise DataError(f"{path}: {name} has {found} under {key}, expected {_looks(tensor)}")
    more = [str(key) for key in weights if key not in own]
    if more:
        raise DataError(f"{path}: {name} has {more[0]}, which the network has not")
    network.load_state_dict(dict(weights))


def _is_real(values: Tensor) -> bool:
    """Whether a tensor holds plain real numbers, unlike a sparse, quantised or complex one or one without values."""
    plain = values.layout is torch.strided and not values.is_quantized and not values.is_meta
    return plain and not values.is_complex()


def _looks(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return f"a {type(value).__name__}"


def restore_random(generator: torch.Generator, state: Tensor, step: int) -> None:
    """Bring a generator to where it was at `step`.

    What a CPU has written means nothing to a GPU, nor the other way round: there it goes on from a seed of its own and
    the step's, to other numbers than on the device where it was.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state.cpu())
        return
    log.info("random numbers of another kind of device: from step %d on they are others", step)
    generator.manual_seed(derive_seed("resumed", generator.initial_seed(), step))


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """The state dict `key` of a checkpoint as arrays. Raises `DataError` where the file is missing or holds none."""
    state = load_checkpoint(path).get(key)
    state = state if isinstance(state, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) and _is_real(value) for value in state.values()):
        raise DataError(f"{path}: holds no state dict {key!r} of real numbers")
    return {str(name): value.float().numpy() for name, value in state.items()}
