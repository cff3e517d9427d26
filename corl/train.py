"""Offline training of a policy with evaluations on the way; resumable, with metrics and results as files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from corl.evaluate import Evaluation
from corl.policy import Policy, load_checkpoint, save_checkpoint
from corl.replay import ReplayData
from corl.td3_bc import TD3BC, TD3BCConfig
from offline_compositional_rl_datasets.layout import COMPOSUITE, FactoredLayout
from offline_compositional_rl_datasets.transitions import Transitions
from runtime import interrupt
from runtime.errors import ConfigError
from runtime.logs import progress
from runtime.metrics import MetricsWriter
from runtime.seeds import derive_seed

log = logging.getLogger(__name__)

ALGORITHMS = ("td3_bc",)
RESUME_FILE = "resume.pt"

Evaluate = Callable[[Policy, Sequence[int]], Evaluation]


@dataclass(frozen=True)
class PolicyConfig:
    """Offline training of one policy. Defaults are those of the published code.

    `n_episodes` are run every `eval_freq` steps to choose the checkpoint. `fresh_episodes`, if not 0, are run once
    more at the end on other start states, with the chosen checkpoint: their rate is free of the optimism of a maximum
    over noisy evaluations. `hide_velocities`: see `ReplayData`.
    """

    algorithm: str = "td3_bc"
    max_timesteps: int = 50_000
    batch_size: int = 1024
    eval_freq: int = 5_000
    n_episodes: int = 10
    fresh_episodes: int = 0
    horizon: int = 500
    hide_velocities: bool = False
    td3_bc: TD3BCConfig = field(default_factory=TD3BCConfig)

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"algorithm {self.algorithm!r}: expected one of {', '.join(ALGORITHMS)}")
        for name in ("max_timesteps", "batch_size", "eval_freq", "n_episodes", "horizon"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a positive number")
        if self.fresh_episodes < 0:
            raise ConfigError(f"fresh_episodes {self.fresh_episodes}: expected 0 or more")


@dataclass(frozen=True)
class PolicyScores:
    """Successes of `episodes`: of the best evaluation, of the last one, and of the best checkpoint on fresh starts."""

    episodes: int
    best_solved: int
    best_return: float
    last_solved: int
    last_return: float
    fresh_episodes: int = 0
    fresh_solved: int = 0
    fresh_return: float = 0.0

    @property
    def solved(self) -> int:
        """Successes that the selection counts: on fresh episodes where there are some, else the best evaluation's."""
        return self.fresh_solved if self.fresh_episodes else self.best_solved

    @property
    def trials(self) -> int:
        return self.fresh_episodes or self.episodes

    @property
    def score(self) -> float:
        """The best mean return."""
        return self.fresh_return if self.fresh_episodes else self.best_return


def checkpoint_file(folder: Path, algorithm: str, which: str) -> Path:
    """`which` is `best_eval` (highest mean return) or `best_successrate`."""
    return folder / f"{algorithm}_policy_model_{which}.pt"


def train_policy(
    transitions: Transitions,
    config: PolicyConfig,
    evaluate: Evaluate,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    layout: FactoredLayout = COMPOSUITE,
    label: str = "policy",
    key: str | None = None,
) -> PolicyScores:
    """Train on `transitions` alone, evaluating in the simulator by `evaluate(policy, seeds)`.

    Writes the two best checkpoints and `metrics.jsonl` into `folder`. A run that was killed continues from its last
    evaluation, if it had the same `key`, and ends with the same numbers as one that was not; the caller removes
    `resume.pt` once it has written the scores down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = ReplayData(transitions, layout, device, hide_velocities=config.hide_velocities)
    learner = TD3BC(layout.state_dim, layout.action_dim, config.td3_bc, seed=seed, device=device)
    indices = torch.Generator(device).manual_seed(derive_seed("replay", seed))
    resume_file = folder / RESUME_FILE
    best: dict[str, Any] = {"return": float("-inf"), "solved": -1, "last_return": 0.0, "last_solved": 0}
    state = load_checkpoint(resume_file) if resume_file.exists() else None
    if state and state.get("key") != key:
        log.warning("%s: made from other inputs or settings; training starts anew", resume_file)
    elif state:
        learner.load_state_dict(state["learner"])
        indices.set_state(state["indices"])
        best = state["best"]
    metrics = MetricsWriter(folder, resume_from=learner.total_it)
    eval_seeds = [derive_seed("evaluation", seed, episode) for episode in range(config.n_episodes)]

    def save_resume() -> None:
        state = {"learner": learner.state_dict(), "indices": indices.get_state(), "best": best, "key": key}
        save_checkpoint(resume_file, state, hidden=config.td3_bc.hidden, data=data)

    with progress(config.max_timesteps, label, done=learner.total_it) as bar:
        while learner.total_it < config.max_timesteps:
            # A run that was asked to stop between two evaluations continues there.
            steps = min(config.eval_freq - learner.total_it % config.eval_freq, config.max_timesteps - learner.total_it)
            losses: dict[str, Any] = {}
            for _ in range(steps):
                rows = torch.randint(len(data), (config.batch_size,), generator=indices, device=device)
                losses |= learner.update(data.batch(rows))
                bar.update(1)
                if interrupt.requested():
                    save_resume()
                    raise interrupt.Interrupted
            result = evaluate(_policy(learner, data, layout), eval_seeds)
            best["last_return"], best["last_solved"] = result.mean_return, result.solved
            networks = learner.state_dict()
            if result.mean_return > best["return"]:
                best["return"] = result.mean_return
                _save(folder, config, "best_eval", networks, data)
            # Among equal success rates the higher return is the better policy.
            if (result.solved, result.mean_return) > (best["solved"], best.get("solved_return", float("-inf"))):
                best["solved"], best["solved_return"] = result.solved, result.mean_return
                _save(folder, config, "best_successrate", networks, data)
            figures = {name: float(value) for name, value in losses.items()}
            metrics.log(
                step=learner.total_it, mean_return=result.mean_return, success_rate=result.success_rate, **figures
            )
            bar.update(0, success=f"{result.solved}/{result.episodes}", mean_return=result.mean_return)
            save_resume()

    fresh = {}
    if config.fresh_episodes:
        policy = Policy.load(checkpoint_file(folder, config.algorithm, "best_successrate"), layout)
        seeds = [derive_seed("fresh", seed, episode) for episode in range(config.fresh_episodes)]
        result = evaluate(policy, seeds)
        fresh = {
            "fresh_episodes": result.episodes,
            "fresh_solved": result.solved,
            "fresh_return": result.mean_return,
        }
    return PolicyScores(
        episodes=config.n_episodes,
        best_solved=best["solved"],
        best_return=best["return"],
        last_solved=best["last_solved"],
        last_return=best["last_return"],
        **fresh,
    )


def _policy(learner: TD3BC, data: ReplayData, layout: FactoredLayout) -> Policy:
    return Policy(learner.actor, data.mean, data.std, layout, learner.device)


def _save(folder: Path, config: PolicyConfig, which: str, networks: dict[str, Any], data: ReplayData) -> None:
    save_checkpoint(checkpoint_file(folder, config.algorithm, which), networks, hidden=config.td3_bc.hidden, data=data)
