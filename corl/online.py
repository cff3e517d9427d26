"""Online learning in one task: step the environments, learn meanwhile, evaluate now and then; resumable to the bit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from corl.batch import Batch
from corl.episodes import EpisodeStream, RestartableEnvironment
from corl.evaluate import Evaluation, finite
from corl.online_config import OnlineConfig
from corl.online_replay import OnlineReplay, RowCode
from corl.rlpd import PriorData, sample
from offline_compositional_rl_datasets.task import Task
from runtime.checkpoint import expect_finite, replace_torch, restore_random
from runtime.errors import DataError, one_line
from runtime.logs import progress
from runtime.metrics import read_metrics
from runtime.resumable import ResumableRun
from runtime.seeds import derive_seed
from runtime.tables import write_csv

log = logging.getLogger(__name__)

HISTORY_FILE = "eval_history.csv"
CHECKPOINT_FILE = "checkpoints/sac_policy_model.pt"
HISTORY_COLUMNS = (
    "global_step",
    "episodic_return",
    "success_rate",
    "best_return",
    "best_success_rate",
    "solved",
    "episodes",
    "mix_ratio",
    "seconds",
)

EvaluateOnline = Callable[[Callable[[np.ndarray], np.ndarray], Sequence[int]], Evaluation]
Sink = Callable[[int, Mapping[str, float]], None]
"""Where figures also go (W&B, TensorBoard): sink(step, {tag: value})."""


class Agent(Protocol):
    """A learner that acts."""

    generator: torch.Generator

    def explore(self, observations: Tensor) -> Tensor: ...

    def greedy(self, observations: Tensor) -> Tensor: ...

    def learn(self, batches: Batch, prior: int = 0) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class OnlineScores:
    """The last evaluation and the best ones; `steps` were taken in the environment."""

    steps: int
    episodes: int
    last_solved: int
    last_return: float
    best_solved: int
    best_return: float


class OnlinePolicy:
    """The agent's mean actions (B, 8) for the simulator's states (B, 77) of one task."""

    def __init__(self, agent: Agent, code: RowCode, task: Task, device: torch.device) -> None:
        self.agent, self.code, self.task, self.device = agent, code, task, device

    def __call__(self, states: np.ndarray) -> np.ndarray:
        observations = torch.from_numpy(self.code(states, self.task)).to(self.device)
        return finite(self.agent.greedy(observations).cpu().numpy(), f"the online agent of {self.task}")


class OnlineRun(ResumableRun):
    """A run in its folder, opened where it was left. To be used as a context manager."""

    FORMAT = "online 3"
    step = 0

    def __init__(
        self,
        policy: OnlinePolicy,
        environment: RestartableEnvironment,
        config: OnlineConfig,
        folder: Path,
        *,
        seed: int,
        prior: PriorData | None = None,
        key: str | None = None,
        sink: Sink | None = None,
    ) -> None:
        super().__init__(folder, key=key, checkpoint_seconds=config.checkpoint_seconds)
        self.policy, self.environment, self.config = policy, environment, config
        self.agent, self.code, self.task, self.device = policy.agent, policy.code, policy.task, policy.device
        self.seed, self.prior, self.sink = seed, prior, sink
        self.replay = OnlineReplay(config.buffer_size, self.code.width, self.device)
        self.random = torch.Generator(self.device).manual_seed(derive_seed("online", seed))
        self.episodes = EpisodeStream(environment, seed=seed, action_dim=self.code.action_dim)
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.finished: list[tuple[float, int, bool]] = []
        """Episodes that ended since losses were written."""
        self.best_return, self.best_solved = -math.inf, -1
        if not self.restore():
            self.replay.clear(folder / "replay")
            (folder / HISTORY_FILE).unlink(missing_ok=True)
        self._pool = ThreadPoolExecutor(1)

    def state_dict(self) -> dict[str, Any]:
        """Without the rows of the replay, which are written beside it."""
        return {
            "agent": self.agent.state_dict(),
            "added": self.replay.added,
            "random": self.random.get_state(),
            "episodes": self.episodes.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": {"return": self.best_return, "solved": self.best_solved},
            "history": self.history,
            "finished": [list(episode) for episode in self.finished],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if any(set(row) != set(HISTORY_COLUMNS) for row in state["history"]):
            raise DataError(f"history: expected rows of {', '.join(HISTORY_COLUMNS)}")
        self.agent.load_state_dict(state["agent"])
        if state["added"]:
            self.replay.load(self.folder / "replay", state["added"])
        else:
            self.replay.clear(self.folder / "replay")
        restore_random(self.random, state["random"], state["step"])
        self.episodes.load_state_dict(state["episodes"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best_return, self.best_solved = state["best"]["return"], state["best"]["solved"]
        self.history = [dict(row) for row in state["history"]]
        self.finished = [(float(total), int(length), bool(solved)) for total, length, solved in state["finished"]]

    def save(self, state: Mapping[str, Any] | None = None) -> None:
        """Write down everything that the rest of the run depends on."""
        self.replay.save(self.folder / "replay")
        super().save(state)
        self.replay.prune(self.folder / "replay")

    def advance(self) -> dict[str, Tensor]:
        """One step of every environment and the updates that go with them; the losses.

        The updates take what was there before the step, so that they can run while the environments do.
        """
        config, count, started = self.config, self.environment.num_envs, time.monotonic()
        before = self.code(self.episodes.states, self.task)
        actions = self._actions(before)
        stepping = self._pool.submit(self.episodes.step, actions)
        losses: dict[str, Tensor] = {}
        if self.step >= config.learning_starts and len(self.replay):
            size = config.batch_size
            offline = int(size * config.mix.ratio(self.step)) if self.prior is not None else 0
            batches = sample(
                self.replay,
                self.prior,
                offline,
                updates=count * config.updates_per_step,
                batch_size=size,
                code=self.code,
                generator=self.random,
            )
            losses = self.agent.learn(batches, offline)
        rewards, next_states, terminated, ended = stepping.result()
        self.replay.add(self.code.rows(before, actions, rewards, self.code(next_states, self.task), terminated))
        self.step += count
        self.finished += ended
        self.seconds += time.monotonic() - started
        return losses

    def _actions(self, observations: np.ndarray) -> np.ndarray:
        if self.config.random_start and self.step < self.config.learning_starts:
            shape = (len(observations), self.code.action_dim)
            return (2 * torch.rand(shape, generator=self.random, device=self.device) - 1).cpu().numpy()
        actions = self.agent.explore(torch.from_numpy(observations).to(self.device)).cpu().numpy()
        return finite(actions, f"{self.folder}: the agent at step {self.step}")

    def evaluation_seeds(self) -> list[int]:
        return [derive_seed("evaluation", self.seed, episode) for episode in range(self.config.n_episodes)]

    def record(self, result: Evaluation) -> None:
        """Write down an evaluation; the checkpoint is that of the best mean return.

        Raises `DataError` where what was learned is not finite.
        """
        agent = self.agent.state_dict()
        expect_finite(agent, f"{self.folder}: what was learned up to step {self.step}")
        if result.mean_return > self.best_return:
            self.best_return = result.mean_return
            checkpoint = {"agent": agent, "global_step": self.step, "eval_score": result.mean_return}
            replace_torch(checkpoint, self.folder / CHECKPOINT_FILE)
        self.best_solved = max(self.best_solved, result.solved)
        row = {
            "global_step": self.step,
            "episodic_return": round(result.mean_return, 4),
            "success_rate": result.success_rate,
            "best_return": round(self.best_return, 4),
            "best_success_rate": self.best_solved / result.episodes,
            "solved": result.solved,
            "episodes": result.episodes,
            "mix_ratio": self.config.mix.ratio(self.step) if self.prior is not None else 0.0,
            "seconds": round(self.seconds, 1),
        }
        self.history.append(row)
        write_csv(self.folder / HISTORY_FILE, HISTORY_COLUMNS, self.history)
        self._emit({f"eval/{name}": row[name] for name in HISTORY_COLUMNS[1:5]})

    def log(self, losses: Mapping[str, Tensor], rate: float) -> None:
        figures = {name: float(value) for name, value in losses.items()}
        figures["SPS"] = round(rate, 1)
        if self.prior is not None:
            figures["mix_ratio"] = self.config.mix.ratio(self.step)
        if self.finished:
            figures["episodic_return"] = float(np.mean([episode[0] for episode in self.finished]))
            figures["episodic_length"] = float(np.mean([episode[1] for episode in self.finished]))
            self.finished = []
        self.write_metrics(step=self.step, **figures)
        charts = ("SPS", "mix_ratio", "episodic_return", "episodic_length")
        self._emit({f"{'charts' if name in charts else 'losses'}/{name}": value for name, value in figures.items()})

    def _emit(self, figures: Mapping[str, float]) -> None:
        if self.sink is not None:
            self.sink(self.step, figures)

    def scores(self) -> OnlineScores:
        last = self.history[-1]
        return OnlineScores(
            steps=last["global_step"],
            episodes=last["episodes"],
            last_solved=last["solved"],
            last_return=last["episodic_return"],
            best_solved=self.best_solved,
            best_return=round(self.best_return, 4),
        )

    def is_over(self) -> bool:
        """At the last step, or at an evaluation that is good enough."""
        if self.step >= self.config.max_timesteps:
            return bool(self.history) and self.history[-1]["global_step"] == self.step
        wanted = self.config.stop_success
        return bool(wanted and self.history and self.history[-1]["success_rate"] >= wanted)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        super().__exit__(kind, error, trace)


def train_online(run: OnlineRun, evaluate: EvaluateOnline, *, label: str = "online") -> OnlineScores:
    """Carry a run to its end.

    Writes `eval_history.csv`, `metrics.jsonl`, the best checkpoint and what it needs to continue into its folder. A
    run that was killed goes on from its last checkpoint and ends with the numbers of one that was not.
    """
    config = run.config
    with progress(config.max_timesteps, label, done=run.step) as bar, run:
        while not run.is_over():
            started, step = time.monotonic(), run.step
            losses: dict[str, Tensor] = {}
            boundary = _next(step, config.max_timesteps, config.eval_freq, config.log_freq)
            while run.step < boundary:
                losses |= run.advance()
                bar.update(run.environment.num_envs)
                if run.step < boundary:
                    run.between_steps()
            run.log(losses, (run.step - step) / (time.monotonic() - started))
            if run.step >= config.max_timesteps or _crossed(step, run.step, config.eval_freq):
                result = evaluate(run.policy, run.evaluation_seeds())
                run.record(result)
                run.save()
                log.info(
                    "%s step %d: %d/%d solved, return %.1f",
                    *(label, run.step, result.solved, result.episodes, result.mean_return),
                )
            run.between_steps()
    return run.scores()


def _next(step: int, *marks: int) -> int:
    """The next step at which something is due: the first mark is the end, the others are periods."""
    end, *periods = marks
    return min([end, *((step // period + 1) * period for period in periods)])


def _crossed(before: int, after: int, period: int) -> bool:
    return after // period > before // period


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's `eval_history.csv` as numbers; none where it has none yet.

    Raises `DataError` where the file is damaged.
    """
    import csv

    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a table of numbers ({one_line(error)})") from error
    lacking = [name for name in HISTORY_COLUMNS if any(name not in row for row in rows)]
    if lacking:
        raise DataError(f"{path}: has no column {', '.join(lacking)}, expected {', '.join(HISTORY_COLUMNS)}")
    return rows


def last_metrics(folder: Path) -> dict[str, Any] | None:
    rows = read_metrics(folder / "metrics.jsonl")
    return rows[-1] if rows else None
