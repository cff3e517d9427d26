"""Steering a frozen policy by reinforcement learning in its noise space (DSRL, arXiv 2506.15799)."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from dsrl.config import DSRLConfig
from dsrl.diffusion_policy import DiffusionPolicy
from dsrl.noise_aliasing import NoiseAliasingSAC
from dsrl.noise_env import NoiseVecEnv, actor_noise, open_noise_environments
from dsrl.rollout import ChooseNoise, Episodes, episode_seeds, open_environments, run_episodes, wilson
from envs.vector import VectorEnv
from runtime.atomic import atomic_path, write_json
from runtime.config import to_dict
from runtime.errors import DataError
from runtime.logs import duration, progress
from runtime.metrics import MetricsWriter
from runtime.provenance import provenance

log = logging.getLogger(__name__)

BEST = "sac_best.zip"
_PARTS = 1.25  # the buffer holds a little more than what is planned: episodes end between chunks


def make_sac(policy: DiffusionPolicy, env: NoiseVecEnv, config: DSRLConfig) -> SAC:
    """SAC (or DSRL-NA) with room in its buffer for the warm start and the training."""
    decisions = int(_PARTS * (config.initial_steps + config.train_steps) / policy.chunk) + 10 * config.num_envs
    options: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "buffer_size": decisions,
        "learning_starts": 0,
        "batch_size": config.batch_size,
        "tau": config.tau,
        "gamma": config.discount,
        "train_freq": 1,
        "gradient_steps": config.utd,
        "ent_coef": config.ent_coef if config.ent_coef.startswith("auto") else float(config.ent_coef),
        "target_entropy": config.target_entropy,
        "policy_kwargs": {"net_arch": list(config.hidden_dims), "activation_fn": torch.nn.Tanh},
        "seed": config.seed,
        "device": policy.device,
    }
    if config.algorithm == "sac":
        return SAC("MlpPolicy", env, **options)
    model = NoiseAliasingSAC("MlpPolicy", env, distill_steps=config.distill_steps, **options)
    model.diffusion = policy
    return model


def warm_start(model: SAC, env: NoiseVecEnv, steps: int, generator: np.random.Generator) -> tuple[int, int]:
    """Fill the buffer with `steps` control steps of the cloned policy; (episodes solved, episodes finished).

    What is stored as the action is w, clipped to the noise's bounds and scaled to [-1, 1]; it is denoised once.
    """
    bound = env.action_space.high
    solved = finished = 0
    model._last_obs = env.reset()
    first = env.env_steps
    with progress(steps, "warm start") as bar:
        while env.env_steps - first < steps:
            w = generator.standard_normal((env.num_envs, len(bound)), dtype=np.float32).clip(-bound, bound)
            before = env.env_steps
            observations, rewards, dones, infos = env.step(w)
            model._store_transition(
                model.replay_buffer, model.policy.scale_action(w), observations, rewards, dones, infos
            )
            solved += sum(bool(info["success"]) for info, done in zip(infos, dones, strict=True) if done)
            finished += int(dones.sum())
            bar.update(env.env_steps - before, solved=f"{solved}/{finished}")
    return solved, finished


class Judge(BaseCallback):
    """Evaluates on fixed episodes now and then, keeps the best actor as `sac_best.zip`, stops at the planned step."""

    def __init__(
        self,
        policy: DiffusionPolicy,
        environments: VectorEnv,
        config: DSRLConfig,
        base: Episodes,
        metrics: MetricsWriter,
    ) -> None:
        super().__init__()
        self.diffusion, self.environments, self.config, self.base, self.metrics = (
            policy,
            environments,
            config,
            base,
            metrics,
        )
        self.best: dict[str, Any] = {"rate": -1.0, "env_steps": 0, "decisions": float("inf")}
        self.seeds = episode_seeds(config.seed, config.eval_episodes)
        self.finished: list[bool] = []
        self._started = time.monotonic()
        self._next = 0

    def _on_training_start(self) -> None:
        self._first = self._env.env_steps
        self._evaluate()

    @property
    def _env(self) -> NoiseVecEnv:
        return self.model.env

    def _on_step(self) -> bool:
        dones, infos = self.locals["dones"], self.locals["infos"]
        self.finished += [bool(info["success"]) for info, done in zip(infos, dones, strict=True) if done]
        steps = self._env.env_steps - self._first
        over = steps >= self.config.train_steps
        if steps >= self._next or over:
            self._evaluate()
        return not over

    def _evaluate(self) -> None:
        steps = self._env.env_steps - self._first
        self._next = steps + self.config.eval_every
        episodes = run_episodes(
            self.diffusion, self.environments, self.seeds, actor_noise(self.model, deterministic=False)
        )
        recent = self.finished[-50:]
        values = self.model.logger.name_to_value
        row = {
            "rate": episodes.rate,
            "base_rate": self.base.rate,
            "mean_decisions": float(episodes.decisions.mean()),
            "online_rate": float(np.mean(recent)) if recent else -1.0,
            "online_episodes": len(self.finished),
            "env_steps": steps,
            "env_steps_with_warm_start": self._env.env_steps,
            "transitions": self.model.num_timesteps,
            "gradient_steps": self.model._n_updates,
            "seconds": round(time.monotonic() - self._started, 1),
            **{name.split("/")[1]: float(value) for name, value in values.items() if name.startswith("train/")},
        }
        self.metrics.log(step=steps, **row)
        log.info(
            "%s control steps (%s decisions, %s gradient steps, %s): %d of %d solved, cloned policy %d",
            *(f"{row[name]:,}" for name in ("env_steps", "transitions", "gradient_steps")),
            duration(row["seconds"]),
            episodes.solved,
            len(self.seeds),
            self.base.solved,
        )
        # Among equal rates the faster policy is the better one.
        if (row["rate"], -row["mean_decisions"]) > (self.best["rate"], -self.best["decisions"]):
            self.best = {"rate": row["rate"], "env_steps": steps, "decisions": row["mean_decisions"]}
            with atomic_path(self.config.save_folder / BEST) as temporary:
                self.model.save(temporary)


def steer(policy: DiffusionPolicy, config: DSRLConfig) -> dict[str, Any]:
    """Train, keep the best actor, and try it and the cloned policy on the same fresh episodes; returns the result.

    Raises `DataError` where the cloned policy solves too little to learn from.
    """
    folder = config.save_folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_dict(config))
    started = time.monotonic()
    metrics = MetricsWriter(folder)
    env = open_noise_environments(
        policy,
        config.num_envs,
        workers=config.workers,
        horizon=config.horizon,
        until_success=config.until_success,
        action_magnitude=config.action_magnitude,
        seed=config.seed,
    )
    batch = min(20, max(config.eval_episodes, config.fresh_episodes))
    with open_environments(policy, batch, horizon=config.horizon) as environments:
        base = run_episodes(policy, environments, episode_seeds(config.seed, config.eval_episodes))
        model = make_sac(policy, env, config)
        solved, finished = warm_start(model, env, config.initial_steps, np.random.default_rng(config.seed))
        log.info(
            "cloned policy: %d of %d fixed episodes, %d of %d in the warm start",
            base.solved,
            config.eval_episodes,
            solved,
            finished,
        )
        if solved + base.solved < config.least_base_rate * (finished + config.eval_episodes):
            raise DataError(
                f"{policy.checkpoint.path}: solves {solved} of {finished} episodes in the warm start; below "
                f"least_base_rate {config.least_base_rate} there is too little to learn from"
            )
        judge = Judge(policy, environments, config, base, metrics)
        model.learn(total_timesteps=10**12, callback=judge, log_interval=None)
        env.close()
        best = SAC.load(folder / BEST, device=policy.device)
        fresh = episode_seeds(config.seed, config.fresh_episodes, "fresh")
        before = run_episodes(policy, environments, fresh)
        result = {
            "task": policy.task.name,
            "algorithm": config.algorithm,
            "cloned": before.summary(),
            "steered": _try(policy, environments, fresh, actor_noise(best, deterministic=False)),
            "steered_deterministic": _try(policy, environments, fresh, actor_noise(best, deterministic=True)),
            "warm_start": {"solved": solved, "episodes": finished, "interval": wilson(solved, max(finished, 1))},
            "best_at_env_steps": judge.best["env_steps"],
            "env_steps": {"warm_start": config.initial_steps, "training": config.train_steps},
            "gradient_steps": model._n_updates,
            "seed": config.seed,
            "seconds": round(time.monotonic() - started),
            "made_with": provenance(),
        }
    result["use"] = max(("cloned", "steered", "steered_deterministic"), key=lambda name: result[name]["solved"])
    write_json(folder / "result.json", result)
    return result


def _try(policy: DiffusionPolicy, environments: VectorEnv, seeds: list[int], choose: ChooseNoise) -> dict[str, Any]:
    return run_episodes(policy, environments, seeds, choose).summary()
