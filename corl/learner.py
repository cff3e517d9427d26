"""What algorithms are written against: named networks that are called, minimised and followed by targets.

`Separate` holds the networks of one policy; `Stacked` those of many, each parameter with a leading dimension for the
member, so that one batched product serves all. An algorithm's step is the same lines for both, and a member's numbers
are those of a run alone up to the rounding of sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from corl.replay import Batch
from runtime.checkpoint import load_optimizer, restore_random
from runtime.seeds import derive_seed

Function = Callable[..., Any]


class Networks(Protocol):
    """Networks by name, one policy's or many."""

    def call(self, function: Function, names: Sequence[str], *inputs: Any, learn: str | None = None) -> Any:
        """function(*networks, *inputs), with gradients for the network `learn` alone (None: no gradients)."""

    def minimise(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        """One step of the network's optimiser down the loss: () for one policy, (N,) for many."""

    def follow(self, names: Sequence[str], tau: float) -> None:
        """Move `<name>_target` a share tau of the way to `<name>`."""


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

    def minimise(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        _descend(self.optimizers[name], loss, learning_rate)

    def follow(self, names: Sequence[str], tau: float) -> None:
        for name in names:
            _lerp(self.modules[f"{name}_target"].parameters(), self.modules[name].parameters(), tau)


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

    def minimise(self, name: str, loss: Tensor, learning_rate: float | None = None) -> None:
        # Members share no parameter: the gradient of the sum is each member's own.
        _descend(self.optimizers[name], loss.sum(), learning_rate)

    def follow(self, names: Sequence[str], tau: float) -> None:
        for name in names:
            _lerp(self.parameters[f"{name}_target"].values(), self.parameters[name].values(), tau)

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


def in_dtype(module: nn.Module, parameters: Mapping[str, Tensor], dtype: torch.dtype | None) -> Function:
    """`module` with these parameters, computing in `dtype`, from float32 and to float32.

    Parameters whose names begin with one of `module.float32`, if it has that, stay as they are.
    """
    if dtype is None:
        return lambda *inputs: functional_call(module, parameters, inputs)
    kept = getattr(module, "float32", ())
    cast = {key: value if key.startswith(kept) else value.to(dtype) for key, value in parameters.items()}

    def run(*inputs: Any) -> Tensor:
        return functional_call(module, cast, tuple(_cast(value, dtype) for value in inputs)).float()

    return run


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float | None) -> None:
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _lerp(targets: Any, sources: Any, tau: float) -> None:
    torch._foreach_lerp_(list(targets), list(sources), tau)


class Learner(ABC):
    """One policy in training: networks, targets, optimisers, its own random numbers, and how many steps it has taken.

    `noisy` says whether `step` wants standard normal noise (B, A) beside the batch; `acting` names the network that is
    the policy.
    """

    noisy = False
    acting = "actor"

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        trained: Sequence[str],
        learning_rate: float,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        optimizers = {n: torch.optim.Adam(modules[n].parameters(), learning_rate, fused=True) for n in trained}
        self.networks = Separate(modules, optimizers, dtype)
        self.generator = torch.Generator(device).manual_seed(derive_seed("noise", seed))
        self.device = device
        self.total_it = 0

    @property
    def actor(self) -> nn.Module:
        return self.networks.modules["actor"]

    @abstractmethod
    def step(self, networks: Networks, batch: Batch, noise: Tensor | None, number: int) -> dict[str, Tensor]:
        """Gradient step `number` (from 1) on one policy or many; losses as tensors (no host synchronisation)."""

    def update(self, batch: Batch, noise: Tensor | None = None) -> dict[str, Tensor]:
        """One gradient step of this policy alone; noise is drawn where none is given."""
        if self.noisy and noise is None:
            noise = torch.randn(batch.actions.shape, generator=self.generator, device=self.device)
        self.total_it += 1
        return self.step(self.networks, batch, noise, self.total_it)

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: module.state_dict() for name, module in self.networks.modules.items()},
            **{f"{name}_optimizer": o.state_dict() for name, o in self.networks.optimizers.items()},
            "generator": self.generator.get_state(),
            "total_it": self.total_it,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, module in self.networks.modules.items():
            module.load_state_dict(state[name])
        for name, optimizer in self.networks.optimizers.items():
            load_optimizer(optimizer, state[f"{name}_optimizer"])
        restore_random(self.generator, state["generator"], state["total_it"])
        self.total_it = state["total_it"]
