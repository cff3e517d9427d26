"""What every denoiser is: a network F(x (B, 164), c_noise (B or 1,), condition (B or 1, 16)) -> (B, 164)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from offline_compositional_rl_datasets.layout import FactoredLayout
from runtime.checks import expect_range
from runtime.errors import ConfigError

ORDERS = ("joint", "state_first")


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a denoiser; which of them count is the network's own.

    `time_scale` multiplies c_noise before its features: c_noise spans only -1.6 to 1.1, over which most of the
    published sinusoids are nearly constant.
    `order`: `joint` has one noise level for the whole transition, as published; with `state_first` (`dit` alone) state
    and rest have levels of their own, and the rest is learned and drawn given the state (`diffusion.state_first`).
    """

    hidden: int = 416
    depth: int = 8
    heads: int = 8
    mlp_ratio: int = 4
    patch: int = 15
    time_scale: float = 1.0
    order: str = "joint"

    def __post_init__(self) -> None:
        expect_range(self, "hidden", "depth", "heads", "mlp_ratio", "patch", least=1)
        expect_range(self, "time_scale", above=True)
        if self.order not in ORDERS:
            raise ConfigError(f"order {self.order!r}: expected one of {', '.join(ORDERS)}")


class Denoiser(nn.Module):
    """A network of `diffusion.denoisers.NETWORKS`, which is built by its layout and sizes."""

    orders: ClassVar[tuple[str, ...]] = ("joint",)

    def __init__(self, layout: FactoredLayout, sizes: NetworkSizes) -> None:
        super().__init__()
        self.layout, self.time_scale = layout, sizes.time_scale

    @classmethod
    def check(cls, sizes: NetworkSizes) -> None:
        """Raises `ConfigError` for sizes that the network cannot have."""
        if sizes.order not in cls.orders:
            raise ConfigError(f"order {sizes.order}: expected kind dit, whose tokens tell the state from the rest")
