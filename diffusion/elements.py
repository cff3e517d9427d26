"""Layers with weights of their own for every element of an axis: a sample uses those of its task's element."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offline_compositional_rl_datasets.layout import FactoredLayout


class ElementLinear(nn.Module):
    """One Linear per element of an axis.

    In sampling the whole batch has one element and its weights are picked once. In training the products with all
    elements are made and the sample's own is chosen: no loop over elements, no mask, no synchronisation with the host.
    """

    def __init__(self, elements: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(elements, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(elements, fan_out))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, one_hot: Tensor | None) -> Tensor:
        """x (B, T, in) and one-hot (B, E) or (1, E), None for a single element, to (B, T, out)."""
        if one_hot is None:
            return F.linear(x, self.weight[0].T, self.bias[0])
        if len(one_hot) == 1:
            weight = torch.einsum("e,eio->io", one_hot[0], self.weight)
            return x @ weight + one_hot @ self.bias
        every = torch.einsum("bti,eio->beto", x, self.weight) + self.bias[:, None]
        return torch.einsum("beto,be->bto", every, one_hot)


class TokenMap(nn.ModuleDict):
    """An `ElementLinear` per kind of token, from the token's numbers to features or back.

    Parts of s and s' pass through their shared weights together.
    """

    def __init__(self, layout: FactoredLayout, maps: dict[str, nn.Module]) -> None:
        super().__init__(maps)
        self.layout = layout
        self.groups: dict[str, list[int]] = {}
        for position, token in enumerate(layout.tokens):
            self.groups.setdefault(token.encoder, []).append(position)

    @classmethod
    def linear(cls, layout: FactoredLayout, sizes: dict[str, tuple[int, int]]) -> TokenMap:
        """`sizes`: encoder -> (fan in, fan out)."""
        elements: dict[str | None, int] = {axis: len(names) for axis, names in layout.axes}
        axes = {token.encoder: token.axis for token in layout.tokens}
        return cls(layout, {k: ElementLinear(elements.get(axes[k], 1), *size) for k, size in sizes.items()})

    def forward(self, parts: list[Tensor], one_hots: dict[str, Tensor]) -> list[Tensor]:
        """Parts (B, d_t) of the first tokens or all, in the layout's order, to parts (B, e_t)."""
        out: list[Tensor] = list(parts)
        for name, positions in self.groups.items():
            positions = [p for p in positions if p < len(parts)]
            if name not in self or not positions:
                continue
            axis = self.layout.tokens[positions[0]].axis
            together = torch.stack([parts[p] for p in positions], dim=1)
            mapped = self[name](together, one_hots[axis] if axis else None)
            for i, position in enumerate(positions):
                out[position] = mapped[:, i]
        return out


def one_hots_of(condition: Tensor, layout: FactoredLayout) -> dict[str, Tensor]:
    """Axis -> one-hot (B or 1, E) from the condition (B or 1, 16)."""
    return {axis: condition[:, part] for axis, part in layout.condition_slices.items()}


def token_sizes(layout: FactoredLayout) -> dict[str, int]:
    """Encoder -> number of dimensions of its tokens."""
    return {token.encoder: token.dim for token in layout.tokens}
