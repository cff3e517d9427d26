"""Several generators as one: transitions from all of them, with what they expect on average.

What a generator expects in a combination that it never saw depends on its seed far more than on its data. The mean of
several errs less than one of them does on average (deep ensembles; Lakshminarayanan et al. 2017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from diffusion.conditional import given_states
from diffusion.config import SamplerConfig
from diffusion.generate import generate
from diffusion.model import DiffusionModel
from diffusion.partial import PartialSamples
from runtime.seeds import derive_seed


def expected_by_all(
    models: Sequence[DiffusionModel], states: np.ndarray, condition: np.ndarray, *, state_noise: float
) -> np.ndarray:
    """(N, 164) float32: states (N, 77) as they are, and the mean over the generators of what each expects of them."""
    each = [given_states(model, states, condition, state_noise=state_noise) for model in models]
    return np.asarray(np.mean(each, axis=0), np.float32)


def generate_by_all(
    models: Sequence[DiffusionModel],
    condition: np.ndarray,
    config: SamplerConfig,
    *,
    seed: int,
    label: str = "samples",
    partials: Sequence[PartialSamples | None],
) -> np.ndarray:
    """(num_samples, 164) float32: states drawn by the generators in equal shares, all else as they expect on average.

    Generators learned the state first, and `config.rest` is `mean`. `partials`: see `generate`, one per generator.
    Raises `DataError` where a network gives values that are not finite.
    """
    if len(models) == 1:
        return generate(models[0], condition, config, seed=seed, label=label, partial=partials[0])
    ends = np.linspace(0, config.num_samples, len(models) + 1).astype(int)
    drawn = [
        generate(
            model,
            condition,
            dataclasses.replace(config, num_samples=int(count)),
            seed=seed if k == 0 else derive_seed("generator", seed, k),
            label=label,
            partial=partial,
        )
        for k, (model, count, partial) in enumerate(zip(models, np.diff(ends), partials, strict=True))
    ]
    states = np.concatenate(drawn)[:, models[0].normalizer.layout.state]
    return expected_by_all(models, states, condition, state_noise=config.state_noise)
