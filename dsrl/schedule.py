"""Which times of the noise schedule a sampler visits."""

from __future__ import annotations

from runtime.errors import ConfigError

SPACINGS = ("leading", "trailing")


def ddim_times(diffusion_steps: int, steps: int, spacing: str) -> list[int]:
    """The times at which the network is asked, from the noisiest: `leading` ends at 0, `trailing` starts at T - 1."""
    if not 1 <= steps <= diffusion_steps:
        raise ConfigError(f"ddim_steps {steps}: expected 1 to diffusion_steps, {diffusion_steps}")
    if spacing not in SPACINGS:
        raise ConfigError(f"spacing {spacing!r}: expected {' or '.join(SPACINGS)}")
    stride = diffusion_steps // steps
    if spacing == "leading":
        return [i * stride for i in reversed(range(steps))]
    return [diffusion_steps - 1 - i * stride for i in range(steps)]
