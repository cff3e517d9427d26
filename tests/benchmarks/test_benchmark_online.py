"""The benchmark of online SAC counts what is computed, and its plain loop computes what ours does."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import online
from corl.batch import Batch
from corl.sac import SAC, SACConfig
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from runtime.atomic import read_json

CPU = torch.device("cpu")


def _batch(size=16):
    states, following = torch.randn(2, size, COMPOSUITE.state_dim)
    return Batch(states, torch.rand(size, 8) * 2 - 1, torch.rand(size), following, (torch.rand(size) > 0.9).float())


@pytest.mark.parametrize("options", [{}, {"critics": 10, "policy_frequency": 1, "layer_norm": "all"}])
def test_the_products_that_are_counted_are_those_that_are_made(options):
    config = SACConfig(hidden_dims=(32, 24), **options)
    agent = SAC.build(COMPOSUITE.state_dim, 8, config, seed=0, device=CPU)
    with FlopCounterMode(display=False) as counter:
        agent.update(_batch(), (torch.randn(2, 16, 8), torch.arange(config.target_critics)))
    assert counter.get_total_flops() == pytest.approx(online.flops_per_update(config, 16), rel=0.01)


def test_the_plain_loop_learns_what_ours_does(monkeypatch):
    """Same weights, no noise: the same losses lead to the same critics."""
    config = SACConfig(hidden_dims=(16, 16))
    ours = SAC.build(COMPOSUITE.state_dim, 8, config, seed=0, device=CPU)
    plain = online.PlainSAC(config, CPU)
    with torch.no_grad():
        for critics in (plain.critics, plain.targets):
            for i, critic in enumerate(critics):
                linears = [layer for layer in critic if isinstance(layer, torch.nn.Linear)]
                for k, linear in enumerate(linears):
                    linear.weight.copy_(ours.modules["critic"].weights[k][i].T)
                    linear.bias.copy_(ours.modules["critic"].biases[k][i, 0])
        linears = [layer for layer in plain.actor if isinstance(layer, torch.nn.Linear)]
        trunk = [layer for layer in ours.actor.trunk if isinstance(layer, torch.nn.Linear)]
        for linear, own in zip(linears, trunk, strict=False):
            linear.weight.copy_(own.weight)
            linear.bias.copy_(own.bias)
        linears[-1].weight.copy_(torch.cat([ours.actor.mean.weight, ours.actor.log_std.weight]))
        linears[-1].bias.copy_(torch.cat([ours.actor.mean.bias, ours.actor.log_std.bias]))
    batch = _batch()
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, shape=(): self.loc)  # noise of 0
    for _ in range(3):
        plain.update(batch)
        ours.update(batch, (torch.zeros(2, 16, 8), torch.arange(2)))
    for i, critic in enumerate(plain.critics):
        torch.testing.assert_close(critic[0].weight, ours.modules["critic"].weights[0][i].T, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(plain.log_alpha[0], ours.modules["temperature"].log_alpha, rtol=1e-4, atol=1e-6)


def test_the_benchmark_runs_quickly_and_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(online, "cpu_count", lambda: 1)
    online.main(quick=True, json=tmp_path / "figures.json")
    figures = read_json(tmp_path / "figures.json")
    assert figures["speed_up_float32"] > 0
    assert figures["measurements"][0]["what"] == "one environment, plain, 1 thread"
