"""What algorithms are written against: named networks that are called, optimised and tracked by targets.

`Separate` holds the networks of one policy; `Stacked` those of many, each parameter with a leading dimension for the
member, so that one batched product serves all. An algorithm's step is the same lines for both, and a member's numbers
are those of a run alone up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

Function = Callable[..., Any]


class Networks(Protocol):
    """Networks by name, one policy's or many."""

    def call(self, function: Function, names: Sequence[str], *inputs: Any, learn: str | None = None) -> Any:
        """function(*networks, *inputs), with gradients for the network `learn` alone (None: no gradients)."""

    def gradient_step(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        """One step of the network's optimiser down the loss: () for one policy, (N,) for many."""

    def polyak_update(self, names: Sequence[str], tau: float) -> None:
        """<name>_target += tau (<name> - <name>_target)."""


class Separate:
    """The networks of one policy. In `dtype`, if given, are products computed; parameters and results stay float32."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.modules, self.optimizers, self.dtype = modules, optimizers, dtype

    def call(self, function: Function, names: Sequence[str], *inputs: Any, learn: str | None = None) -> Any:
        fixed = [self.modules[name] for name in names if name != learn and name in self.optimizers]
        for module in fixed:
            module.requires_grad_(False)
        with torch.set_grad_enabled(learn is not None):
            networks = [self._callable(self.modules[name]) for name in names]
            result = function(*networks, *inputs)
        for module in fixed:
            module.requires_grad_(True)
        return result

    def _callable(self, module: nn.Module) -> Function:
        if self.dtype is None:
            return module
        return in_dtype(module, dict(module.named_parameters()), self.dtype)

    def gradient_step(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        _gradient_step(self.optimizers[name], loss, learning_rate)

    def polyak_update(self, names: Sequence[str], tau: float) -> None:
        for name in names:
            _polyak_update(self.modules[f"{name}_target"].parameters(), self.modules[name].parameters(), tau)


class Stacked:
    """The networks of many policies of the same shape, and one optimiser for all members of a name."""

    def __init__(self, members: Sequence[Separate]) -> None:
        first = members[0]
        self.dtype = first.dtype
        self.modules = first.modules  # for their forward pass alone
        self.parameters = {
            name: {
                key: torch.stack([dict(member.modules[name].named_parameters())[key].detach() for member in members])
                for key, _ in module.named_parameters()
            }
            for name, module in first.modules.items()
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, optimizer in first.optimizers.items():
            leaves = [parameter.requires_grad_() for parameter in self.parameters[name].values()]
            self.optimizers[name] = type(optimizer)(leaves, **optimizer.defaults)
            states = [member.optimizers[name].state_dict()["state"] for member in members]
            if states[0]:
                joined = self.optimizers[name].state_dict()
                joined["state"] = {
                    i: {
                        key: value if key == "step" else torch.stack([state[i][key] for state in states])
                        for key, value in states[0][i].items()
                    }
                    for i in states[0]
                }
                self.optimizers[name].load_state_dict(joined)

    def call(self, function: Function, names: Sequence[str], *inputs: Any, learn: str | None = None) -> Any:
        modules = [self.modules[name] for name in names]
        parameters = [
            self.parameters[name]
            if name == learn
            else {key: value.detach() for key, value in self.parameters[name].items()}
            for name in names
        ]

        def one_member(own: list[dict[str, Tensor]], *inputs: Any) -> Any:
            networks = [in_dtype(module, p, self.dtype) for module, p in zip(modules, own, strict=True)]
            return function(*networks, *inputs)

        with torch.set_grad_enabled(learn is not None):
            return vmap(one_member)(parameters, *inputs)

    def gradient_step(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        # Members share no parameter: the gradient of the sum is each member's own.
        _gradient_step(self.optimizers[name], loss.sum(), learning_rate)

    def polyak_update(self, names: Sequence[str], tau: float) -> None:
        for name in names:
            _polyak_update(self.parameters[f"{name}_target"].values(), self.parameters[name].values(), tau)

    @torch.no_grad()
    def write_back(self, members: Sequence[Separate]) -> None:
        """Give every member its parameters and the state of its optimisers."""
        for i, member in enumerate(members):
            for name, module in member.modules.items():
                for key, parameter in module.named_parameters():
                    parameter.copy_(self.parameters[name][key][i])
            for name, optimizer in member.optimizers.items():
                own = optimizer.state_dict()
                own["state"] = {
                    k: {key: value.clone() if key == "step" else value[i].clone() for key, value in state.items()}
                    for k, state in self.optimizers[name].state_dict()["state"].items()
                }
                optimizer.load_state_dict(own)


def in_dtype(module: nn.Module, parameters: dict[str, Tensor], dtype: torch.dtype | None) -> Function:
    """`module` with these parameters, computing in `dtype`, from float32 and to float32.

    Parameters whose names begin with one of `module.float32`, if it has that, stay as they are.
    """
    if dtype is None:
        return lambda *inputs: functional_call(module, parameters, inputs)
    kept = getattr(module, "float32", ())
    cast = {key: value if key.startswith(kept) else value.to(dtype) for key, value in parameters.items()}

    def run(*inputs: Any) -> Tensor:
        result: Tensor = functional_call(module, cast, tuple(_cast(value, dtype) for value in inputs))
        return result.float()

    return run


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float | None) -> None:
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _polyak_update(targets: Iterable[Tensor], sources: Iterable[Tensor], tau: float) -> None:
    torch._foreach_lerp_(list(targets), list(sources), tau)
