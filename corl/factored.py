"""Policies that know the factors of the state: the hard-coded compositional graph and the semantic transformer.

Every network here is a batch of `count` independent ones of the same shape (two critics cost one call), and takes raw
observations with task ids (B, 93): the ids choose each layer's weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corl.networks import LOG_STD
from offline_compositional_rl_datasets.graphs import GRAPHS, Node
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.layers import ElementNorm, attend, modulate, position_table


class Choice:
    """Which element of an axis each sample has: one-hot (B, E), and on a CPU the samples sorted by element.

    Sorted, a layer makes only the products that are kept; on a GPU it makes those with all elements, since to know the
    sizes of the groups would stop the device.
    """

    def __init__(self, one_hot: Tensor) -> None:
        self.one_hot = one_hot
        self.groups: list[tuple[int, int]] | None = None  # element, number of samples
        self.order: Tensor | None = None  # None: in order as they are
        if one_hot.device.type == "cpu":
            elements = one_hot.argmax(dim=1)
            counts = elements.bincount(minlength=one_hot.shape[1]).tolist()
            self.groups = [(element, count) for element, count in enumerate(counts) if count]
            if len(self.groups) > 1:
                self.order = elements.argsort(stable=True)
                self.back = self.order.argsort()


class ElementLayer(nn.Module):
    """`count` x one Linear per element of an axis."""

    def __init__(self, count: int, elements: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, elements, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(count, elements, 1, fan_out))
        bound = (6 / (fan_in + fan_out)) ** 0.5  # Xavier, of each element's own matrix
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, choice: Choice | None, count: int | None = None) -> Tensor:
        """x (C or 1, B, in) and the samples' elements (None: there is one) to (C, B, out); C: the first `count`."""
        weights, biases = self.weight[:count], self.bias[:count]
        x = x.expand(len(weights), -1, -1).to(weights.dtype)
        if choice is None:
            return torch.baddbmm(biases[:, 0], x, weights[:, 0])
        if choice.groups is None:
            every = (x[:, None] @ weights + biases).movedim(1, 2)
            return (every * choice.one_hot[..., None]).sum(dim=2)
        if choice.order is None:
            element = choice.groups[0][0]
            return torch.baddbmm(biases[:, element], x, weights[:, element])
        parts = x[:, choice.order].split([size for _, size in choice.groups], dim=1)
        done = [
            torch.baddbmm(biases[:, element], part, weights[:, element])
            for (element, _), part in zip(choice.groups, parts, strict=True)
        ]
        return torch.cat(done, dim=1)[:, choice.back]


_ACTION_NODE = "proprioception"
_HIDDEN_BIAS, _LAST_BOUND = 0.1, 3e-3


class GraphNetwork(nn.Module):
    """Nodes in a row; each has a module per element of its axis. Observations (B, 93) to (count, B, out)."""

    def __init__(
        self, layout: FactoredLayout, nodes: Sequence[Node], out: int, *, count: int = 1, actions: bool = False
    ) -> None:
        super().__init__()
        self.layout, self.nodes = layout, tuple(nodes)
        factors = {factor.name: factor for factor in layout.factors}
        sizes = {axis: len(elements) for axis, elements in layout.axes}
        self.layers = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        before = 0
        for node in nodes:
            factor = factors[node.factor]
            width = factor.dim + (layout.action_dim if actions and node.factor == _ACTION_NODE else 0)
            for i, fan_out in enumerate((*node.own, node.joint or out)):
                joint = i == len(node.own)
                name = f"{node.factor}_{i}"
                layer = ElementLayer(count, sizes[factor.axis], width + before if joint else width, fan_out)
                self.layers[name] = layer
                if joint and node.joint is None:
                    nn.init.uniform_(layer.weight, -_LAST_BOUND, _LAST_BOUND)
                    nn.init.uniform_(layer.bias, -_LAST_BOUND, _LAST_BOUND)
                else:
                    nn.init.uniform_(layer.weight, -(fan_out**-0.5), fan_out**-0.5)
                    nn.init.constant_(layer.bias, _HIDDEN_BIAS)
                    self.norms[name] = ElementNorm(sizes[factor.axis], fan_out, count=count)
                width = fan_out
            before = width
        self.last = name
        """The last layer's name."""

    def forward(self, observations: Tensor, actions: Tensor | None = None, count: int | None = None) -> Tensor:
        axes = {factor.name: factor.axis for factor in self.layout.factors}
        ids = observations[..., self.layout.ids_slice]
        messages: list[Tensor] = []  # (C, B, width) of the nodes so far
        for node in self.nodes:
            choice = Choice(ids[..., self.layout.condition_slices[axes[node.factor]]])
            h = observations[..., self.layout.slices_with_ids[node.factor]]
            if actions is not None and node.factor == _ACTION_NODE:
                h = torch.cat([h, actions], dim=-1)
            h = h[None]
            for i in range(len(node.own) + 1):
                if i == len(node.own) and messages:
                    h = torch.cat([messages[-1], h.expand(len(messages[-1]), -1, -1)], dim=-1)
                name = f"{node.factor}_{i}"
                h = self.layers[name](h, choice, count)
                if name in self.norms:
                    h = torch.relu(self.norms[name](h, choice.one_hot, count))
            messages.append(h)
        return messages[-1]


class PolicyTransformer(nn.Module):
    """The state's factors (and the action) as tokens; one adaLN-Zero block conditioned on the task; mean over tokens.

    Observations (B, 93) to (count, B, out). It starts at 0.
    """

    positions: Tensor  # (T, D)
    HIDDEN, HEADS, MLP = 72, 4, 86

    def __init__(self, layout: FactoredLayout, out: int, *, count: int = 1, actions: bool = False) -> None:
        super().__init__()
        self.layout = layout
        hidden = self.HIDDEN
        sizes = {axis: len(elements) for axis, elements in layout.axes}

        def linear(fan_in: int, fan_out: int) -> ElementLayer:
            return ElementLayer(count, 1, fan_in, fan_out)

        self.encoders = nn.ModuleDict(
            {f.name: ElementLayer(count, sizes[f.axis], f.dim, hidden) for f in layout.factors}
        )
        if actions:
            self.encoders["action"] = linear(layout.action_dim, hidden)
        self.embed_in, self.embed_out = linear(layout.condition_dim, hidden), linear(hidden, hidden)
        self.qkv, self.attention_out = linear(hidden, 3 * hidden), linear(hidden, hidden)
        self.mlp_in, self.mlp_out = linear(hidden, self.MLP), linear(self.MLP, hidden)
        self.modulation, self.final_modulation = linear(hidden, 6 * hidden), linear(hidden, 2 * hidden)
        self.final = linear(hidden, out)
        for layer in (self.embed_in, self.embed_out):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.modulation, self.final_modulation, self.final):
            nn.init.zeros_(layer.weight)
        self.register_buffer("positions", position_table(len(self.encoders), hidden), persistent=False)

    def forward(self, observations: Tensor, actions: Tensor | None = None, count: int | None = None) -> Tensor:
        layout = self.layout
        ids = observations[..., layout.ids_slice]
        tokens = [
            self.encoders[f.name](
                observations[None, ..., layout.slices_with_ids[f.name]],
                Choice(ids[..., layout.condition_slices[f.axis]]),
                count,
            )
            for f in layout.factors
        ]
        if actions is not None:
            tokens.append(self.encoders["action"](actions[None], None, count))
        x = torch.stack(tokens, dim=2)  # (C, B, T, D)
        x = x + self.positions.to(x.dtype)
        c = F.silu(self.embed_out(F.silu(self.embed_in(ids[None], None, count)), None, count))
        shift1, scale1, gate1, shift2, scale2, gate2 = self._of_condition(self.modulation, c, 6, count)
        x = x + gate1 * self._attend(modulate(x, shift1, scale1), count)
        h = F.gelu(_on_tokens(self.mlp_in, modulate(x, shift2, scale2), count), approximate="tanh")
        x = x + gate2 * _on_tokens(self.mlp_out, h, count)
        shift, scale = self._of_condition(self.final_modulation, c, 2, count)
        out: Tensor = self.final(modulate(x, shift, scale).mean(dim=2), None, count)
        return out

    @staticmethod
    def _of_condition(layer: ElementLayer, c: Tensor, parts: int, count: int | None) -> tuple[Tensor, ...]:
        modulation: Tensor = layer(c, None, count)[:, :, None]
        return modulation.chunk(parts, dim=-1)

    def _attend(self, x: Tensor, count: int | None) -> Tensor:
        members, batch, tokens, hidden = x.shape
        parts = _on_tokens(self.qkv, x, count).view(members * batch, tokens, 3, self.HEADS, hidden // self.HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v)
        return _on_tokens(self.attention_out, mixed.transpose(1, 2).reshape(x.shape), count)


def _on_tokens(layer: ElementLayer, x: Tensor, count: int | None) -> Tensor:
    """A layer on every token: (C, B, T, in) to (C, B, T, out)."""
    out: Tensor = layer(x.flatten(1, 2), None, count).unflatten(1, x.shape[1:3])
    return out


FACTORED = (*GRAPHS, "transformer")


def factored_network(
    name: str, layout: FactoredLayout, out: int, *, count: int = 1, actions: bool = False
) -> GraphNetwork | PolicyTransformer:
    """`compositional`, `cp` or `transformer`."""
    if name == "transformer":
        return PolicyTransformer(layout, out, count=count, actions=actions)
    return GraphNetwork(layout, GRAPHS[name], out, count=count, actions=actions)


class FactoredActor(nn.Module):
    """Observations (B, 93) to actions (B, A) in (-1, 1); `gaussian` adds a log standard deviation per action."""

    def __init__(self, name: str, layout: FactoredLayout, *, gaussian: bool = False) -> None:
        super().__init__()
        self.net = factored_network(name, layout, layout.action_dim)
        self.log_std = nn.Parameter(torch.zeros(layout.action_dim)) if gaussian else None

    def forward(self, observations: Tensor, distribution: bool = False) -> Tensor:
        """Actions (B, A), or the distribution (`corl.networks`): (1, B, A), of a Gaussian one (2, B, A)."""
        mean = torch.tanh(self.net(observations)[0])
        if not distribution:
            return mean
        if self.log_std is None:
            return mean[None]
        return torch.stack([mean, self.log_std.clamp(*LOG_STD).expand_as(mean)])


def last_layer(network: GraphNetwork | PolicyTransformer) -> str:
    """What the names of the parameters of its last layer begin with."""
    return "final." if isinstance(network, PolicyTransformer) else f"layers.{network.last}."


class FactoredCritic(nn.Module):
    """Observations (B, 93), actions (B, A) to values (2, B), or those of the first `count` critics alone.

    The last layer stays float32, as `corl.networks.CriticEnsemble`'s.
    """

    def __init__(self, name: str, layout: FactoredLayout) -> None:
        super().__init__()
        self.net = factored_network(name, layout, 1, count=2, actions=True)
        self.float32 = (f"net.{last_layer(self.net)}",)

    def forward(self, observations: Tensor, actions: Tensor, count: int | None = None) -> Tensor:
        values: Tensor = self.net(observations, actions, count)[..., 0]
        return values


class FactoredValue(nn.Module):
    """Observations (B, 93) to values (B,), whose last layer stays float32."""

    def __init__(self, name: str, layout: FactoredLayout) -> None:
        super().__init__()
        self.net = factored_network(name, layout, 1)
        self.float32 = (f"net.{last_layer(self.net)}",)

    def forward(self, observations: Tensor) -> Tensor:
        values: Tensor = self.net(observations)[0, :, 0]
        return values


def factored(name: str, kind: str, layout: FactoredLayout, *, gaussian: bool = False) -> nn.Module:
    """The `actor`, `critic` (a pair) or `value` of a kind of `FACTORED`."""
    if name == "critic":
        return FactoredCritic(kind, layout)
    if name == "value":
        return FactoredValue(kind, layout)
    return FactoredActor(kind, layout, gaussian=gaussian)
