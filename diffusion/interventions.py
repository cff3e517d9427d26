"""What a factor of the generated transition depends on: change one thing and see which factors change with it.

Two interventions. Another id: the same noise is denoised under a task that differs in one element of one axis, so that
nothing but the element can have made the difference. Another token: in a noised transition one token is put in from
another transition of the same task, and the denoiser's estimate of every token is compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffusion.attention import SIGMAS, own_samples, semantic_network
from diffusion.model import DiffusionModel
from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.errors import ConfigError

NOISE = "noise"
_FLOOR = 1e-3  # least standard deviation that a change is measured in; below it a dimension is constant


@dataclass(frozen=True)
class Swap:
    """One exchange of an element: `change` (T,), root mean square change of each token in standard deviations."""

    axis: str
    source: str
    target: str
    change: np.ndarray


def token_changes(before: np.ndarray, after: np.ndarray, std: np.ndarray, layout: FactoredLayout) -> np.ndarray:
    """(T,) root mean square over rows and the token's dimensions of (after - before) / std."""
    squares = ((after - before) / std) ** 2
    return np.sqrt([squares[:, token.part].mean() for token in layout.tokens])


def swap_ids(
    model: DiffusionModel, conditions: Mapping[str, np.ndarray], count: int = 128, *, seed: int = 0
) -> list[Swap]:
    """Exchange every element of every task by each other one of the axis that occurs among `conditions` (16,).

    An axis with one element has none. Changes are in standard deviations over the generated transitions of all
    `conditions` together. To judge them by there is one swap of the axis `noise` per task: the same id, other noise.
    Raises `ConfigError` where no axis has two elements.
    """
    layout = model.normalizer.layout
    wanted: dict[bytes, np.ndarray] = {condition.tobytes(): condition for condition in conditions.values()}
    swaps = []
    for condition, (axis, elements) in itertools.product(list(wanted.values()), layout.axes):
        part = layout.condition_slices[axis]
        present = np.any([c[part] for c in conditions.values()], axis=0)
        source = int(condition[part].argmax())
        for target in np.flatnonzero(present):
            if target == source:
                continue
            changed = condition.copy()
            changed[part] = np.eye(len(elements), dtype=condition.dtype)[target]
            wanted.setdefault(changed.tobytes(), changed)
            swaps.append((axis, elements[source], elements[target], condition.tobytes(), changed.tobytes()))
    if not swaps:
        raise ConfigError("all tasks are the same: expected tasks that differ in an element")
    drawn = own_samples(model, wanted, count, seed=seed)
    together = np.concatenate([drawn[c.tobytes()] for c in conditions.values()])
    std = np.maximum(together.std(axis=0), _FLOOR)
    again = own_samples(model, conditions, count, seed=seed + 1)
    return [
        Swap(axis, source, target, token_changes(drawn[before], drawn[after], std, layout))
        for axis, source, target, before, after in swaps
    ] + [
        Swap(NOISE, name, name, token_changes(drawn[condition.tobytes()], again[name], std, layout))
        for name, condition in conditions.items()
    ]


def axis_matrix(swaps: Sequence[Swap]) -> dict[str, np.ndarray]:
    """Axis -> (T,) mean change over its swaps."""
    axes = dict.fromkeys(swap.axis for swap in swaps)
    return {axis: np.mean([swap.change for swap in swaps if swap.axis == axis], axis=0) for axis in axes}


@torch.inference_mode()
def swap_tokens(
    model: DiffusionModel, samples: Mapping[str, np.ndarray], conditions: Mapping[str, np.ndarray], *,
    sigmas: Sequence[float] = SIGMAS, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """(sigmas, T, T), mean over tasks: the row's token is exchanged, the column's estimate changes by so much.

    In standard deviations of the training data (s' as s' - s where the generator models that). `samples` (N, 164) of
    each task are noised to each level; the donor is the next transition of the task, noised alike.
    """
    semantic_network(model)
    layout = model.normalizer.layout
    scale = np.broadcast_to(torch.as_tensor(model.sigma_data).cpu().numpy(), layout.transition_dim)
    total = np.zeros((len(sigmas), len(layout.tokens), len(layout.tokens)))
    for name, matrix in samples.items():
        y = model.normalizer.normalize(torch.from_numpy(matrix).to(model.normalizer.mean.device))
        condition = torch.from_numpy(conditions[name]).to(y.device)[None]
        generator = torch.Generator(y.device).manual_seed(seed)
        for i, sigma in enumerate(sigmas):
            noise = torch.randn(y.shape, generator=generator, device=y.device)
            x = model.noised(y, sigma, noise)
            level = y.new_tensor([sigma])
            before = model.denoise(x, level, condition).cpu().numpy()
            for row, token in enumerate(layout.tokens):
                changed = x.clone()
                changed[:, token.part] = x.roll(1, dims=0)[:, token.part]
                after = model.denoise(changed, level, condition).cpu().numpy()
                total[i, row] += token_changes(before, after, scale, layout)
    return total / len(samples)
