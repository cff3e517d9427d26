"""One policy's training as files: its checkpoints, metrics and where it can be continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corl.config import PolicyConfig
from corl.evaluate import Evaluation
from corl.learner import Noise
from corl.policy import Policy, checkpoint_file, save_checkpoint
from corl.replay import ReplayData
from corl.scores import PolicyScores
from runtime.checkpoint import expect_finite, on_cpu, restore_random
from runtime.resumable import ResumableRun
from runtime.seeds import derive_seed

_BLOCK = 50
"""Steps whose random numbers are drawn together."""


@dataclass(frozen=True)
class Snapshot:
    """A policy in training at one step: `networks` as the learner's state (on the CPU), `indices` the replay's."""

    step: int
    networks: Mapping[str, Any]
    indices: Tensor
    losses: Mapping[str, float] = field(default_factory=dict)


class PolicyRun(ResumableRun):
    """A (data set, seed) pair in its folder: learner, batches, best checkpoints so far. Opens where it was left."""

    FORMAT = "policy 3"

    def __init__(
        self,
        data: ReplayData,
        config: PolicyConfig,
        folder: Path,
        *,
        seed: int,
        device: torch.device,
        key: str | None = None,
    ) -> None:
        super().__init__(folder, key=key, checkpoint_seconds=config.checkpoint_seconds)
        self.data, self.config, self.seed, self.device = data, config, seed, device
        self.layout = data.transform.layout
        self.learner = config.build(self.layout, seed=seed, device=device)
        self.indices = torch.Generator(device).manual_seed(derive_seed("replay", seed))
        self.best: dict[str, Any] = {
            "return": float("-inf"),
            "solved": -1,
            "solved_return": float("-inf"),
            "last_return": 0.0,
            "last_solved": 0,
        }
        self.restore()

    @property
    def step(self) -> int:
        return self.learner.total_it

    def next_boundary(self) -> int:
        """The step of the next evaluation. A run that was asked to stop between two of them continues there."""
        every = self.config.eval_freq
        return min(self.step - self.step % every + every, self.config.max_timesteps)

    def draw(self, steps: int) -> tuple[Tensor, Noise]:
        """Random numbers of the next steps, at most a block: rows (K, B) and what the learner's steps take."""
        shape = (min(steps, _BLOCK), self.config.batch_size)
        rows = torch.randint(len(self.data), shape, generator=self.indices, device=self.device)
        return rows, self.learner.draw(*shape, self.layout.action_dim)

    def advance(self, steps: int) -> Iterator[dict[str, Tensor]]:
        """Take the next steps, at most a block; the losses of each."""
        rows, noise = self.draw(steps)
        for k in range(len(rows)):
            yield self.learner.update(self.data.batch(rows[k]), tuple(values[k] for values in noise))

    def snapshot(self, losses: Mapping[str, Tensor]) -> Snapshot:
        """What must not change while it is evaluated and written, though training may go on."""
        networks = on_cpu(self.learner.state_dict())
        figures = {name: float(value) for name, value in losses.items()}
        return Snapshot(self.step, networks, self.indices.get_state().clone(), figures)

    def policy(self, snapshot: Snapshot) -> Policy:
        """The snapshot's policy, on the CPU."""
        actor = self.config.actor(self.layout)
        actor.load_state_dict(snapshot.networks[self.learner.acting])
        return self._policy(actor.requires_grad_(False))

    def current_policy(self) -> Policy:
        """The policy in training, on its device."""
        return self._policy(self.learner.actor, self.device)

    def _policy(self, actor: torch.nn.Module, device: torch.device | str = "cpu") -> Policy:
        return Policy(actor, self.data.transform, device, acting=self.config.acting(self.layout))

    def evaluation_seeds(self) -> list[int]:
        """Of an evaluation on the way; of the only one, where nothing is chosen, the fresh ones."""
        if not self.config.n_episodes:
            return self.fresh_seeds()
        return [derive_seed("evaluation", self.seed, episode) for episode in range(self.config.n_episodes)]

    def fresh_seeds(self) -> list[int]:
        return [derive_seed("fresh", self.seed, episode) for episode in range(self.config.fresh_episodes)]

    def chosen_policy(self) -> Policy:
        """The best checkpoint by success."""
        return Policy.load(checkpoint_file(self.folder, self.config.algorithm, "best_successrate"), self.layout)

    def record(self, snapshot: Snapshot, result: Evaluation) -> None:
        """Write down an evaluation: better checkpoints, metrics, and last where to continue.

        Raises `DataError` where what was learned is not finite: nothing is written then.
        """
        expect_finite(snapshot.networks, f"{self.folder}: what was learned up to step {snapshot.step}")
        best = self.best
        best["last_return"], best["last_solved"] = result.mean_return, result.solved
        if result.mean_return > best["return"]:
            best["return"] = result.mean_return
            self._save("best_eval", snapshot)
        # Among equal success rates the higher return is the better policy.
        if (result.solved, result.mean_return) > (best["solved"], best["solved_return"]):
            best["solved"], best["solved_return"] = result.solved, result.mean_return
            self._save("best_successrate", snapshot)
        figures = {"mean_return": result.mean_return, "success_rate": result.success_rate, **snapshot.losses}
        self.write_metrics(step=snapshot.step, **figures)
        self.save({"learner": snapshot.networks, "indices": snapshot.indices, "best": best})

    def state_dict(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict(), "indices": self.indices.get_state(), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        restore_random(self.indices, state["indices"], self.step)
        self.best = dict(state["best"])

    def _save(self, which: str, snapshot: Snapshot) -> None:
        path = checkpoint_file(self.folder, self.config.algorithm, which)
        save_checkpoint(path, snapshot.networks, self.config, self.data)

    def scores(self, fresh: Evaluation | None) -> PolicyScores:
        """With the evaluation of `fresh_seeds`, where the chosen checkpoint is scored afresh."""
        best = self.best
        solved, mean_return = (fresh.solved, fresh.mean_return) if fresh else (0, 0.0)
        if not self.config.n_episodes:
            solved, mean_return = best["solved"], best["return"]
        return PolicyScores(
            episodes=self.config.n_episodes or self.config.fresh_episodes,
            best_solved=best["solved"],
            best_return=best["return"],
            last_solved=best["last_solved"],
            last_return=best["last_return"],
            fresh_episodes=self.config.fresh_episodes,
            fresh_solved=solved,
            fresh_return=mean_return,
        )
