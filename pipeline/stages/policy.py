"""Stage 3: train policies on one set each and measure them. The one place where a learner meets the simulator."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from corl.config import PolicyConfig
from corl.scores import PolicyScores
from corl.train import train_policy
from envs.family import family_of
from offline_compositional_rl_datasets.samples import read_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import EpisodeEnds, Transitions
from pipeline.jobs.stage import Stage, StageProgress, key_of, read_scores
from pipeline.jobs.stage_group import StageGroup, in_groups
from pipeline.stages.paths import RESULT_FILE
from runtime.checks import expect_range
from runtime.config import config_hash
from runtime.cpus import cpu_count, use_threads, worker_count
from runtime.device import pick_device
from runtime.errors import ConfigError, DataError
from runtime.metrics import read_metrics
from runtime.resumable import discard
from runtime.seeds import LARGEST_SEED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainPolicy(Stage):
    """Stage 3: train a policy on one set alone (a sample file, or expert data) and measure it in the simulator."""

    task: Task
    data: Path
    synthetic: bool
    policy: PolicyConfig
    seed: int
    folder: Path
    device: str = "auto"
    episode_ends: EpisodeEnds = "drop"  # of expert data
    practised: bool = False  # the set was made by practice

    def __post_init__(self) -> None:
        expect_range(self, "seed", most=LARGEST_SEED)

    @property
    def name(self) -> str:
        return f"policy {self.task.name} seed {self.seed}{' practised' if self.practised else ''}"

    @property
    def output(self) -> Path:
        return self.folder / RESULT_FILE

    @property
    def members(self) -> tuple[TrainPolicy, ...]:
        """The pairs of task and seed that this job takes."""
        return (self,)

    def key(self) -> str:
        ends = [] if self.synthetic else [self.episode_ends]
        return config_hash([key_of(self.data), self.task.name, self.policy.identity, self.seed, *ends])

    def progress(self) -> StageProgress:
        rows = read_metrics(self.folder / "metrics.jsonl", "success_rate")
        if not rows:
            return StageProgress(f"training on {self.data.name}")
        step, steps = rows[-1]["step"], self.policy.max_timesteps
        return StageProgress(f"step {step:,}/{steps:,}, success {rows[-1]['success_rate']:.2f}", step / steps)

    def scores(self) -> PolicyScores:
        """The result of a finished job."""
        return read_scores(PolicyScores, self.output)

    def work(self, key: str) -> None:
        from corl.evaluate import evaluate
        from corl.replay import ReplayData
        from corl.run import PolicyRun
        from envs.pool import EnvPool
        from pipeline.stages.evaluators import environments_for

        device = pick_device(self.device)
        environments = environments_for(self.policy.n_episodes, self.policy.fresh_episodes)
        workers = worker_count(self.threads)
        with EnvPool(self.task, environments, workers=workers, horizon=self.policy.horizon) as environment:
            data = ReplayData.of(self.transitions(), self.policy, self.task.layout, device)
            run = PolicyRun(data, self.policy, self.folder, seed=self.seed, device=device, key=key)
            scores = train_policy(run, lambda policy, seeds: evaluate(policy, environment, seeds), label=self.name)
        self.finish(scores, key)

    def transitions(self) -> Transitions:
        if self.synthetic:
            return read_samples(self.data, self.task, self.task.layout)
        return family_of(self.task).read_data(self.data, self.task, episode_ends=self.episode_ends)

    def finish(self, scores: PolicyScores, key: str) -> None:
        """Write the result; what was kept to continue from is no longer needed."""
        record = {"task": self.task.name, "seed": self.seed, "scores": asdict(scores), "data": str(self.data)}
        self.commit(record, key)
        discard(self.folder)
        best = f" (best evaluation {scores.best_solved}/{scores.episodes})" if self.policy.n_episodes else ""
        log.info("%s: %d/%d solved%s, return %.0f", self.name, scores.solved, scores.trials, best, scores.score)


@dataclass(frozen=True)
class TrainPolicies(StageGroup[TrainPolicy]):
    """Stage 3 for many pairs at once: one process trains them all together, others evaluate them meanwhile."""

    members: tuple[TrainPolicy, ...]

    def __post_init__(self) -> None:
        # Each holds its folder's lock while the group trains: one of them twice would wait for itself.
        folders = [member.folder for member in self.members]
        for member in self.members:
            if folders.count(member.folder) > 1:
                raise ConfigError(f"{member.name}: twice in a group of policies, expected once")

    @property
    def name(self) -> str:
        return f"policies {self.members[0].task.name} seed {self.members[0].seed} and {len(self.members) - 1} more"

    @property
    def output(self) -> Path:
        return self.record_in(self.members[0].folder.parent, [member.folder.name for member in self.members])

    def progress(self) -> StageProgress:
        parts = [member.progress() for member in self.members]
        fraction = sum(part.fraction for part in parts) / len(parts)
        return StageProgress(f"{len(parts)} policies, {parts[0].text}", fraction)

    def work(self, key: str) -> None:
        import torch

        from corl.bulk import train_policies
        from corl.replay import ReplayData
        from corl.run import PolicyRun
        from pipeline.stages.evaluators import Evaluators, environments_for

        with contextlib.ExitStack() as stack:
            held = {member: stack.enter_context(member.held()) for member in self.members}
            keys = {member: own for member, own in held.items() if own is not None}
            left = list(keys)
            if left:
                policy, device = left[0].policy, pick_device(left[0].device)
                cores = self.threads or cpu_count()
                # On a CPU training and evaluation share the cores; beside a GPU evaluation has them all.
                workers = cores if device.type == "cuda" else max(1, cores // 2)
                use_threads(cores if device.type == "cuda" else max(1, cores - workers))
                data, host = {}, torch.device("cpu")
                for member in left:
                    if member.data not in data:
                        # On the host: all of them go to the device at once, if it has the room.
                        data[member.data] = ReplayData.of(member.transitions(), policy, member.task.layout, host)
                runs = [
                    PolicyRun(
                        data[member.data],
                        policy,
                        member.folder,
                        seed=member.seed,
                        device=device,
                        key=keys[member],
                    )
                    for member in left
                ]
                num_envs = environments_for(policy.n_episodes, policy.fresh_episodes)
                with Evaluators(workers, num_envs=num_envs, horizon=policy.horizon) as evaluators:
                    scores = train_policies(
                        runs,
                        policy,
                        lambda i, policy, seeds: evaluators.submit(left[i].task, policy, seeds),
                        label=self.name,
                    )
                lost = [score for score in scores if isinstance(score, DataError)]
                for member, score in zip(left, scores, strict=True):
                    if isinstance(score, DataError):
                        log.warning("%s: %s", member.name, score)
                    else:
                        member.finish(score, keys[member])
                if lost:
                    raise DataError(f"{len(lost)} of {len(self.members)} policies have no result: {lost[0]}")
            names = [member.folder.name for member in self.members]
            self.commit({"members": names}, key)


def policies_in_groups(stages: Sequence[TrainPolicy], size: int) -> list[TrainPolicy | TrainPolicies]:
    """The jobs for these policies, at most `size` of them each; neighbours, which share their data, stay together."""
    return in_groups(stages, size, TrainPolicies)
