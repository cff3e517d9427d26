"""Networks through torch.compile, where that pays and works."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from runtime.errors import one_line

log = logging.getLogger(__name__)


class Compiled(nn.Module):
    """A network through torch.compile; where that fails it runs as it is from then on, and a warning says so."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._run: Any = torch.compile(network.forward)

    def forward(self, *inputs: Any) -> Any:
        if self._run is not None:
            try:
                return self._run(*inputs)
            except Exception as error:
                # What is wrong with the network or its inputs is raised below once more.
                log.warning("torch.compile failed, the network runs without: %s", one_line(error))
                self._run = None
        return self.network(*inputs)


def compiled(network: nn.Module, wanted: bool | None, device: torch.device) -> nn.Module:
    """The network, through torch.compile if `wanted`; None: on a GPU, where launches are what it waits for."""
    if wanted is None:
        wanted = device.type == "cuda"
    return Compiled(network) if wanted else network
