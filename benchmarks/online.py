"""Steps per second of online SAC (environment and updates) beside a plain loop with one environment.

Example: python -m benchmarks.online --json online.json

The plain loop is what one writes first: single networks, `torch.distributions`, an optimiser that is not fused, one
environment, one thing after the other; its update computes what ours does. The variants take turns in slices, so that
a noisy machine slows all alike: look at the ratio.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.limits import Measurement, matmul_rate, report
from corl.batch import Batch
from corl.online import OnlinePolicy, OnlineRun
from corl.online_config import OnlineConfig
from corl.online_replay import ObservationCode
from corl.sac import SAC, SACConfig
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import StateTransform
from runtime.checks import expect_sizes
from runtime.cli import parse_flags
from runtime.cpus import cpu_count
from runtime.device import autocast_dtype, pick_device
from runtime.main import run_main

_OBS, _ACTION = COMPOSUITE.state_dim, COMPOSUITE.action_dim


class PlainSAC:
    """SAC with a list of separate critics, written down in the obvious way."""

    def __init__(self, config: SACConfig, device: torch.device) -> None:
        def network(fan_in: int, fan_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for width in config.hidden_dims:
                layers += [nn.Linear(fan_in, width)]
                layers += [nn.LayerNorm(width)] if config.layer_norm == "all" and fan_out == 1 else []
                layers += [nn.ReLU()]
                fan_in = width
            if config.layer_norm == "last" and fan_out == 1:
                layers.append(nn.LayerNorm(fan_in))
            return nn.Sequential(*layers, nn.Linear(fan_in, fan_out)).to(device)

        self.config, self.updates = config, 0
        self.actor = network(_OBS, 2 * _ACTION)
        self.critics = [network(_OBS + _ACTION, 1) for _ in range(config.critics)]
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros(1, requires_grad=True, device=device)
        self.q_optimizer = torch.optim.Adam([p for c in self.critics for p in c.parameters()], config.q_lr)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), config.policy_lr)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], config.q_lr)

    def act(self, states: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(states).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, (-5 + 3.5 * (torch.tanh(log_std) + 1)).exp())
        raw = normal.rsample()
        action = torch.tanh(raw)
        return action, (normal.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)).sum(1, keepdim=True)

    def update(self, batch: Batch) -> None:
        config = self.config
        self.updates += 1
        with torch.no_grad():
            action, log_prob = self.act(batch.next_states)
            chosen = np.random.default_rng().permutation(config.critics)[: config.target_critics]
            pair = torch.cat([batch.next_states, action], 1)
            q = torch.min(torch.stack([self.targets[i](pair) for i in chosen]), 0)[0] - self.log_alpha.exp() * log_prob
            target = batch.rewards + (1 - batch.dones) * config.discount * q.view(-1)
        pair = torch.cat([batch.states, batch.actions], 1)
        loss = torch.stack([F.mse_loss(critic(pair).view(-1), target) for critic in self.critics]).sum()
        self.q_optimizer.zero_grad()
        loss.backward()
        self.q_optimizer.step()
        if self.updates % config.policy_frequency == 0:
            action, log_prob = self.act(batch.states)
            pair = torch.cat([batch.states, action], 1)
            q = torch.stack([critic(pair) for critic in self.critics])
            q = q.mean(0) if config.actor_mean else q.min(0)[0]
            loss = (self.log_alpha.exp().detach() * log_prob - q).mean()
            self.actor_optimizer.zero_grad()
            loss.backward()
            self.actor_optimizer.step()
            loss = (-self.log_alpha.exp() * (log_prob.detach() - _ACTION)).mean()
            self.a_optimizer.zero_grad()
            loss.backward()
            self.a_optimizer.step()
        for critic, slow in zip(self.critics, self.targets, strict=True):
            for p, t in zip(critic.parameters(), slow.parameters(), strict=True):
                t.data.copy_(config.tau * p.data + (1 - config.tau) * t.data)


def plain_loop(task: CompoSuiteTask, config: OnlineConfig, device: torch.device) -> Callable[[int], None]:
    """advance(steps) of the plain loop."""
    import envs

    env, agent = envs.make(task), PlainSAC(config.sac, device)
    keys = ("states", "actions", "rewards", "next_states", "dones")
    buffer = {k: np.zeros((100_000, w), np.float32) for k, w in zip(keys, (_OBS, _ACTION, 1, _OBS, 1), strict=True)}
    state = {"observation": env.reset(seed=0)[0], "added": 0}

    def advance(steps: int) -> None:
        for _ in range(steps):
            observation, added = state["observation"], state["added"]
            with torch.no_grad():
                action = agent.act(torch.tensor(observation, device=device)[None])[0][0].cpu().numpy()
            following, reward, terminated, truncated, _ = env.step(action)
            row = (observation, action, reward, following, float(terminated))
            for key, value in zip(keys, row, strict=True):
                buffer[key][added % 100_000] = value
            state["added"] = added + 1
            for _ in range(config.updates_per_step):
                chosen = np.random.randint(0, min(added + 1, 100_000), config.batch_size)  # noqa: NPY002 - as one does
                parts = {key: torch.tensor(buffer[key][chosen], device=device) for key in keys}
                parts |= {key: parts[key].view(-1) for key in ("rewards", "dones")}
                agent.update(Batch(**parts))
            state["observation"] = env.reset()[0] if terminated or truncated else following

    return advance


@contextlib.contextmanager
def our_loop(
    task: CompoSuiteTask, config: OnlineConfig, device: torch.device, folder: Path
) -> Iterator[Callable[[int], None]]:
    """advance(steps) of a run with all environments and worker processes."""
    from envs.pool import EnvPool

    code = ObservationCode(StateTransform.unscaled(COMPOSUITE))
    dtype = autocast_dtype(device, config.precision)
    agent = SAC.build(code.dim, code.action_dim, config.sac, seed=0, device=device, dtype=dtype)
    workers = cpu_count() - 1 if device.type == "cpu" else cpu_count()
    with EnvPool(task, config.num_envs, workers=workers, horizon=config.horizon) as environment:
        run = OnlineRun(OnlinePolicy(agent, code, task, device), environment, config, folder, seed=0)

        def advance(steps: int) -> None:
            stop = run.step + steps
            while run.step < stop:
                run.advance()

        yield advance


def main(
    task: str = "IIWA_Box_None_PickPlace",
    rlpd: bool = False,
    num_envs: int = 8,
    seconds: float = 40.0,
    device: str = "auto",
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Print environment steps per second, each with its updates, and their share of this machine's matrix products.

    Args:
        task: name of the task
        rlpd: RLPD's ten critics and 20 updates per step in place of two and one
        num_envs: environments of ours side by side
        seconds: time in all
        device: auto, cpu or cuda[:N]
        quick: small networks, two seconds
        json: file for the figures
    """
    expect_sizes(num_envs=num_envs, seconds=seconds)
    where, parsed = pick_device(device), CompoSuiteTask.parse(task)
    sac, updates, batch_size = SACConfig(), 1, 256
    if rlpd:
        sac, updates = SACConfig(policy_frequency=20, critics=10, layer_norm="all", actor_mean=True), 20
    if quick:
        sac, updates, batch_size, num_envs, seconds = SACConfig(hidden_dims=(16, 16)), 1, 16, 2, 2.0
    config = OnlineConfig(
        num_envs=num_envs,
        learning_starts=num_envs,
        buffer_size=100_000,
        batch_size=batch_size,
        updates_per_step=updates,
        sac=sac,
    )
    precisions = ("float32", "bfloat16")
    with contextlib.ExitStack() as stack:
        cores = cpu_count()
        # Whether a second thread helps depends on the machine: the plain loop is compared at its best.
        loops: dict[str, tuple[Callable[[int], None], int, int]] = {
            "plain, 1 thread": (plain_loop(parsed, config, where), 4, 1)
        }
        if cores > 1:
            loops[f"plain, {cores} threads"] = (plain_loop(parsed, config, where), 4, cores)
        for precision in precisions:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            loop = stack.enter_context(our_loop(parsed, replace(config, precision=precision), where, folder))
            loops[precision] = (loop, num_envs, max(1, cores - 1))
        spent, steps = dict.fromkeys(loops, 0.0), dict.fromkeys(loops, 0)
        for advance, slice_steps, threads in loops.values():
            torch.set_num_threads(threads)
            advance(3 * slice_steps)
        while sum(spent.values()) < seconds:
            for name, (advance, slice_steps, threads) in loops.items():
                torch.set_num_threads(threads)
                start = time.perf_counter()
                advance(slice_steps)
                spent[name] += time.perf_counter() - start
                steps[name] += slice_steps
    rates = {name: steps[name] / spent[name] for name in loops}
    work = updates * flops_per_update(sac, batch_size)
    rows = []
    for name, rate in rates.items():
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        note = f"{rate:,.1f} steps/s"
        what = f"one environment, {name}" if name.startswith("plain") else f"{num_envs} environments, {name}"
        rows.append(Measurement(what, task, 1 / rate, rate * work, matmul_rate(where, dtype), "FLOP/s", note))
    torch.set_num_threads(1)
    plain = max(rate for name, rate in rates.items() if name.startswith("plain"))
    report(rows, json, speed_up_float32=rates["float32"] / plain, speed_up_bfloat16=rates["bfloat16"] / plain)


def flops_per_update(config: SACConfig, batch_size: int) -> float:
    """FLOP of one update's products that are needed, averaged over updates with and without the actor's.

    A forward pass costs 2 per weight and sample, as do the gradients of its weights and those of its inputs (of which
    the first layer's are not needed where the input is data).
    """
    sizes = (_OBS + _ACTION, *config.hidden_dims, 1)
    critic = sum(a * b for a, b in itertools.pairwise(sizes))
    first = sizes[0] * sizes[1]
    sizes = (_OBS, *config.hidden_dims, 2 * _ACTION)
    actor = sum(a * b for a, b in itertools.pairwise(sizes))
    actor_first = sizes[0] * sizes[1]
    critic_step = actor + config.target_critics * critic + config.critics * (3 * critic - first)
    actor_step = 3 * actor - actor_first + 2 * config.critics * critic
    return 2.0 * batch_size * (critic_step + actor_step / config.policy_frequency)


if __name__ == "__main__":
    run_main(lambda: parse_flags(main))
