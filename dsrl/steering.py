"""Steering a frozen policy by reinforcement learning in its noise space (DSRL, arXiv 2506.15799)."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from dsrl.config import DSRLConfig
from dsrl.critics import LayerNormPolicy
from dsrl.decisions import OfflineDecisions
from dsrl.noise_aliasing import Distillation, NoiseAliasingSAC
from dsrl.noise_env import NoiseVecEnv, actor_noise, open_noise_environments
from dsrl.noise_sac import NoiseSAC, UpdateRule
from dsrl.offline import read_offline, write_buffer
from dsrl.rollout import Episodes, episode_seeds, open_environments, run_episodes
from dsrl.saved_actor import load_saved_actor
from dsrl.steerable import SteerablePolicy
from dsrl.steering_state import SteeringFolder
from envs.pool import EnvPool
from runtime.atomic import atomic_path
from runtime.checkpoint import expect_finite
from runtime.errors import DataError
from runtime.intervals import wilson
from runtime.logs import duration, progress
from runtime.provenance import provenance
from runtime.resumable import ResumableRun
from runtime.seeds import derive_seed, rng

log = logging.getLogger(__name__)

BEST = "sac_best.zip"
_PARTS = 1.25  # the buffer holds a little more than what is planned: episodes end between chunks
_RECENT = 50  # training episodes that the online rate is of


def make_sac(
    policy: SteerablePolicy, env: NoiseVecEnv, config: DSRLConfig, offline: OfflineDecisions | None = None
) -> NoiseSAC:
    """DSRL-SAC or DSRL-NA with room in its buffer for the warm start and the training."""
    decisions = int(_PARTS * (config.initial_steps + config.max_timesteps) / policy.chunk) + 10 * config.num_envs
    network = {
        "net_arch": list(config.hidden_dims),
        "activation_fn": torch.nn.Tanh,
        "optimizer_kwargs": {"fused": True},
        "n_critics": config.critics,
    }
    options: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "buffer_size": decisions,
        "batch_size": config.batch_size,
        "tau": config.tau,
        "gamma": config.discount,
        "ent_coef": config.ent_coef if config.ent_coef.startswith("auto") else float(config.ent_coef),
        "target_entropy": config.target_entropy,
        "policy_kwargs": network,
        "rule": UpdateRule(**{field.name: getattr(config, field.name) for field in fields(UpdateRule)}),
        "seed": config.seed,
        "device": policy.device,
    }
    kind = LayerNormPolicy if config.critic_layer_norm else "MlpPolicy"
    if config.algorithm == "sac":
        model = NoiseSAC(kind, env, **options)
        model.offline = offline
        return model
    distillation = Distillation(config.distill_steps, config.distill_pairs, config.refresh_share)
    model = NoiseAliasingSAC(kind, env, frozen=policy, distillation=distillation, **options)
    if offline is not None:
        model.take_offline(offline)
    return model


class Steering(ResumableRun):
    """A run in progress: environments, agent with its replay buffer, counters. Opens where it was left."""

    FORMAT = "steering 3"
    NOT_LEARNED = ("environments",)

    def __init__(self, policy: SteerablePolicy, config: DSRLConfig, key: str | None = None) -> None:
        super().__init__(config.save_folder, key=key, checkpoint_seconds=config.checkpoint_seconds)
        self.policy, self.config = policy, config
        self.env = open_noise_environments(
            policy,
            config.num_envs,
            workers=config.workers,
            horizon=config.horizon,
            until_success=config.until_success,
            action_magnitude=config.action_magnitude,
            reward_offset=config.reward_offset,
            seed=derive_seed("episodes", config.seed),
        )
        offline = read_offline(Path(config.offline_data), policy, config) if config.offline_data else None
        self.model = make_sac(policy, self.env, config, offline)
        self.prior = rng("prior", config.seed)
        self.fixed_episodes = episode_seeds(config.seed, config.n_episodes)
        self.count: dict[str, Any] = {
            "base_solved": -1,  # of the fixed episodes, by the cloned policy
            "warm_solved": 0,
            "warm_episodes": 0,
            "warm_env_steps": 0,
            "episodes": 0,
            "evaluated_at": -1,
            "next_evaluation": 0,
            "critic_steps": 0,  # of the warm-up
            "next_checkpoint": config.checkpoint_every or float("inf"),
        }
        self._seconds, self._since = 0.0, time.monotonic()
        self.recent: list[bool] = []
        self.best: dict[str, Any] = {"rate": -1.0, "env_steps": 0, "value": float("-inf")}
        self.seen: np.ndarray | None = None
        self.restore()

    @property
    def step(self) -> int:
        """The last evaluation's."""
        return int(self.count["evaluated_at"])

    @property
    def steps(self) -> int:
        """Control steps of the training, without the warm start."""
        return self.env.env_steps - int(self.count["warm_env_steps"])

    @property
    def seconds(self) -> float:
        """Of all processes that worked on this run."""
        return self._seconds + time.monotonic() - self._since

    @property
    def is_warm(self) -> bool:
        return self.env.env_steps >= self.config.initial_steps

    def warm_up(self) -> int:
        """One decision of each environment by the cloned policy, into the buffer; the control steps it took.

        What is stored as the action is w ~ N(0, I) within the noise's bounds, scaled; it is denoised once.
        """
        w = prior_noise(self.prior, self.env.num_envs, self.env.action_space.high, self.config.warm_noise)
        before = self.env.env_steps
        solved = self._execute(w)
        self.count["warm_solved"] += sum(solved)
        self.count["warm_episodes"] += len(solved)
        self.count["warm_env_steps"] = self.env.env_steps
        return self.env.env_steps - before

    def advance(self) -> int:
        """One decision of each environment by the actor, then the gradient steps; the control steps it took."""
        before = self.env.env_steps
        solved = self._execute(self.model.explore(self._begin()))
        self.count["episodes"] += len(solved)
        self.recent = (self.recent + solved)[-_RECENT:]
        self.model.train(self.config.utd, self.config.batch_size)
        return self.env.env_steps - before

    def _begin(self) -> np.ndarray:
        """What is seen now; the first episodes begin, where there are none."""
        if self.seen is None:
            self.seen = self.model._last_obs = self.env.reset()
        return self.seen

    def _execute(self, w: np.ndarray) -> list[bool]:
        """Step all environments by w (E, 28) and keep what happened; whether each episode that ended was solved."""
        self._begin()
        self.env.step_async(w)
        self.seen, rewards, dones, infos = self.env.step_wait()
        scaled = self.model.policy.scale_action(w)
        self.model._store_transition(self.model.replay_buffer, scaled, self.seen, rewards, dones, infos)
        self.model.num_timesteps += len(w)
        return [bool(info["success"]) for info, done in zip(infos, dones, strict=True) if done]

    def evaluate(self, environments: EnvPool) -> dict[str, float]:
        """The fixed episodes by the actor's mean and by its samples, with the counters that belong to them.

        Which is better depends on the task: samples are wider than what is best, a mean can be stuck for good. Raises
        `DataError` where what was learned is not finite.
        """
        expect_finite(self.model.learned(), f"{self.folder}: what was learned up to step {self.steps}")
        mean, sampled = (
            run_episodes(self.policy, environments, self.fixed_episodes, actor_noise(self.model, deterministic=choice))
            for choice in (True, False)
        )
        better = max(mean, sampled, key=self._merit)
        last = self.steps >= self.config.max_timesteps
        self.count["evaluated_at"] = self.steps
        self.count["next_evaluation"] = (
            float("inf") if last else min(self.steps + self.config.eval_freq, self.config.max_timesteps)
        )
        return {
            "rate": better.rate,
            "mean_rate": mean.rate,
            "sampled_rate": sampled.rate,
            "base_rate": self.count["base_solved"] / len(self.fixed_episodes),
            "mean_decisions": float(better.decisions.mean()),
            "mean_return": float(better.returns.mean()),
            "value": self._merit(better)[1],
            "online_rate": float(np.mean(self.recent)) if self.recent else -1.0,
            "online_episodes": self.count["episodes"],
            "env_steps": self.steps,
            "env_steps_with_warm_start": self.env.env_steps,
            "transitions": self.model.num_timesteps,
            "gradient_steps": self.model._n_updates,
            "seconds": round(self.seconds, 1),
            **self.model.losses,
        }

    def _merit(self, episodes: Episodes) -> tuple[float, float]:
        """Success, and what steering earns in an episode: where a task is only to be solved, the faster is better."""
        return episodes.rate, float((episodes.returns - self.config.reward_offset * episodes.control_steps).mean())

    def keep_checkpoint_if_due(self) -> None:
        """`checkpoints/sac_<steps>.zip`, maybe with the replay buffer, at the first decision past each period."""
        every, steps = self.config.checkpoint_every, self.steps
        if steps < self.count["next_checkpoint"]:
            return
        expect_finite(self.model.learned(), f"{self.folder}: what was learned up to step {steps}")
        with atomic_path(self.folder / "checkpoints" / f"sac_{steps}.zip") as temporary:
            self.model.save(temporary)
        if self.config.keep_buffer:
            path = self.folder / "checkpoints" / f"buffer_{steps}.npz"
            write_buffer(path, self.model.replay_buffer, self.policy, self.config)
        self.count["next_checkpoint"] = (steps // every + 1) * every

    def state_dict(self) -> dict[str, Any]:
        begun = self.seen is not None
        return {
            "model": self.model.state(),
            "environments": _of_tensors(self.env.snapshot()) if begun else None,
            "seen": torch.from_numpy(self.seen) if begun else None,
            "prior": self.prior.bit_generator.state,
            "count": self.count,
            "recent": self.recent,
            "best": self.best,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.restore(state["model"])
        self.prior.bit_generator.state = state["prior"]
        self.count, self.recent, self.best = dict(state["count"]), list(state["recent"]), dict(state["best"])
        self._seconds, self._since = state["seconds"], time.monotonic()
        self.seen, self.env.env_steps = None, 0
        if state["seen"] is not None:
            self.env.restore(state["environments"])
            self.seen = self.model._last_obs = state["seen"].numpy()


def steer(policy: SteerablePolicy, config: DSRLConfig) -> Mapping[str, Any]:
    """Train, keep the best actor, and try it and the cloned policy on the same fresh episodes; returns the result.

    A run that was killed continues from its last `resume.pt`, which is written every `checkpoint_seconds` and when the
    run is asked to stop, and ends as one that was not. Raises `DataError` where the cloned policy solves too little to
    learn from, `StateError` where the folder belongs to other settings.
    """
    folder = SteeringFolder(config.save_folder, config, policy)
    if (result := folder.result()) is not None:
        log.info("%s: finished before", folder.path)
        return result
    run = Steering(policy, config, folder.key)
    batch = config.eval_envs or min(20, max(config.n_episodes, config.fresh_episodes))
    workers = config.eval_workers
    try:
        with open_environments(policy, batch, workers=workers, horizon=config.horizon) as environments, run:
            _warm_start(run, environments)
            _train(run, environments)
            result = _try_on_fresh_episodes(run, environments)
    finally:
        run.env.close()
    folder.finish(result)
    return result


def prior_noise(generator: np.random.Generator, count: int, bound: np.ndarray, how: str) -> np.ndarray:
    """w (count, W) ~ N(0, I) float32 within +-bound (W,): `clipped` to it, or drawn within it (`truncated`)."""
    if how == "clipped":
        return generator.standard_normal((count, len(bound)), dtype=np.float32).clip(-bound, bound)
    least = ndtr(-bound.astype(np.float64))
    w: np.ndarray = ndtri(generator.uniform(least, 1 - least, (count, len(bound))))
    return w.astype(np.float32).clip(-bound, bound)


def _of_tensors(value: Any) -> Any:
    """The same with arrays as tensors, which can be read without trusting the file."""
    if isinstance(value, dict):
        return {key: _of_tensors(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_of_tensors(inner) for inner in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _warm_start(run: Steering, environments: EnvPool) -> None:
    config, count = run.config, run.count
    begins = count["base_solved"] < 0 or not run.is_warm
    if count["base_solved"] < 0:
        count["base_solved"] = run_episodes(run.policy, environments, run.fixed_episodes).solved
    if not run.is_warm:
        with progress(config.initial_steps, "warm start", done=run.env.env_steps) as bar:
            while not run.is_warm:
                taken = run.warm_up()
                bar.update(taken, solved=f"{count['warm_solved']}/{count['warm_episodes']}")
                run.between_steps()
    if begins:
        _expect_enough_to_learn_from(run)
    while count["critic_steps"] < config.critic_warmup:
        run.model.train_critics(config.batch_size)
        count["critic_steps"] += 1
        run.between_steps()


def _expect_enough_to_learn_from(run: Steering) -> None:
    """Raises `DataError` where the cloned policy solves too little."""
    config, solved, episodes = run.config, run.count["warm_solved"], run.count["warm_episodes"]
    base = run.count["base_solved"]
    log.info(
        "cloned policy: %d of %d fixed episodes, %d of %d in the warm start",
        *(base, config.n_episodes, solved, episodes),
    )
    if solved + base < config.least_base_rate * (episodes + config.n_episodes):
        raise DataError(
            f"{run.policy.source}: solves {solved} of {episodes} episodes in the warm start; below "
            f"least_base_rate {config.least_base_rate} there is too little to learn from"
        )


def _train(run: Steering, environments: EnvPool) -> None:
    config = run.config
    with progress(config.max_timesteps, f"steering {run.policy.task}", done=run.steps) as bar:
        while True:
            if run.steps >= run.count["next_evaluation"]:
                row = run.evaluate(environments)
                run.write_metrics(step=run.steps, **row)
                _report(row, config.n_episodes)
                _keep_if_best(run, row)
            if run.steps >= config.max_timesteps:
                return
            bar.update(run.advance())
            run.keep_checkpoint_if_due()
            run.between_steps()


def _report(row: dict[str, float], episodes: int) -> None:
    log.info(
        "%s control steps (%s decisions, %s gradient steps, %s): of %d episodes the actor's mean solves %.0f, its "
        "samples %.0f, the cloned policy %.0f",
        *(f"{row[name]:,}" for name in ("env_steps", "transitions", "gradient_steps")),
        duration(row["seconds"]),
        episodes,
        *(row[name] * episodes for name in ("mean_rate", "sampled_rate", "base_rate")),
    )


def _keep_if_best(run: Steering, row: dict[str, float]) -> None:
    if (row["rate"], row["value"]) > (run.best["rate"], run.best["value"]):
        run.best = {name: row[name] for name in run.best}
        with atomic_path(run.config.save_folder / BEST) as temporary:
            run.model.save(temporary)


def _try_on_fresh_episodes(run: Steering, environments: EnvPool) -> dict[str, Any]:
    """The cloned policy and the best actor, sampled and by its mean, on the same episodes that chose nothing."""
    policy, config, count = run.policy, run.config, run.count
    best = load_saved_actor(config.save_folder / BEST, policy.device)
    choices = {
        "cloned": None,
        "steered": actor_noise(best, deterministic=False),
        "steered_deterministic": actor_noise(best, deterministic=True),
    }
    fresh = episode_seeds(config.seed, config.fresh_episodes, "fresh")
    tried = {name: run_episodes(policy, environments, fresh, choose).summary() for name, choose in choices.items()}
    return {
        "task": policy.task.name,
        "algorithm": config.algorithm,
        **tried,
        "use": max(tried, key=lambda name: tried[name]["solved"]),
        "warm_start": {
            "solved": count["warm_solved"],
            "episodes": count["warm_episodes"],
            "interval": list(wilson(count["warm_solved"], max(count["warm_episodes"], 1))),
        },
        "best_at_env_steps": run.best["env_steps"],
        "env_steps": {"warm_start": count["warm_env_steps"], "training": run.steps},
        "gradient_steps": run.model._n_updates,
        "seed": config.seed,
        "seconds": round(run.seconds),
        "made_with": provenance(),
    }
