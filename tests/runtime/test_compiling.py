"""torch.compile where it is asked for, and networks that run without where it fails."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from runtime.compiling import compiled

CPU = torch.device("cpu")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))


def test_a_network_is_compiled_by_default_on_a_gpu_alone(network: nn.Module) -> None:
    assert compiled(network, None, CPU) is network
    assert compiled(network, False, torch.device("cuda")) is network
    for wanted, device in ((None, "cuda"), (True, "cpu")):
        assert list(compiled(network, wanted, torch.device(device)).parameters()) == list(network.parameters())


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_a_warning_says_so(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    torch._dynamo.reset()
    tried, x = compiled(network, True, CPU), torch.randn(4, 3)
    for _ in range(2):
        out = tried(x)
        assert torch.equal(out, network(x))
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert [record.message[:20] for record in caplog.records if record.name == "runtime.compiling"] == [
        "torch.compile failed"
    ]


def test_what_is_wrong_with_the_inputs_is_not_taken_for_a_failed_compilation(network: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(network, True, CPU)(torch.randn(4, 7))
