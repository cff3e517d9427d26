"""Between generation and validation, if asked for: practise on a task in the simulator, labelled by its generator."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from corl.config import PolicyConfig
from corl.practice import ORIGINS, PracticeConfig, best_round
from diffusion.config import SamplerConfig
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from offline_compositional_rl_datasets.task import Task
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.jobs.stage import Stage, StageProgress, key_of
from pipeline.stages.paths import practised_file
from runtime.config import config_hash
from runtime.cpus import worker_count
from runtime.device import pick_device
from runtime.provenance import provenance
from runtime.resumable import RESUME_FILE, discard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Practise(Stage):
    """Make a practised set of a generated one. Uses the held-out task's simulator, but no expert and no reward."""

    task: Task
    checkpoint: Path
    data: Path
    practice: PracticeConfig
    sampling: SamplerConfig
    policy: PolicyConfig
    seed: int
    device: str = "auto"
    others: tuple[Path, ...] = ()  # checkpoints of further generators

    @property
    def name(self) -> str:
        return f"practise {self.task.name}"

    @property
    def output(self) -> Path:
        return practised_file(self.data)

    def key(self) -> str:
        bounds = [
            self.sampling.state_noise,
            self.sampling.clip_actions,
            self.sampling.clip_rewards,
            self.sampling.clear_terminals,
        ]
        policy = self.policy
        seen: list[float] = [policy.horizon, policy.hide_velocities, policy.canonical_quaternions]
        seen += [policy.least_std] if policy.least_std else []
        inputs = [*map(key_of, (self.checkpoint, *self.others)), key_of(self.data), self.task.name]
        return config_hash([*inputs, self.practice.identity, *bounds, *seen, self.seed])

    def progress(self) -> StageProgress:
        begun = (self.output.parent / RESUME_FILE).exists()
        return StageProgress("practising" if begun else "beginning")

    def work(self, key: str) -> None:
        from corl.practice import Practice
        from diffusion.ensemble import expected_by_all
        from diffusion.generate import keep_in_range
        from diffusion.model import DiffusionModel
        from envs.pool import EnvPool

        device, layout = pick_device(self.device), self.task.layout
        models = [DiffusionModel.load(checkpoint, layout, device) for checkpoint in (self.checkpoint, *self.others)]

        def expected(states: np.ndarray) -> np.ndarray:
            level = self.sampling.state_noise
            matrix = expected_by_all(models, states, self.task.one_hot, state_noise=level)
            keep_in_range(matrix, models[0], self.sampling)
            return matrix

        start = read_samples(self.data, self.task, layout)
        transform = self.policy.transform(start.states, layout)
        workers = worker_count(self.threads)
        with EnvPool(self.task, self.practice.episodes, workers=workers, horizon=self.policy.horizon) as environment:
            run = Practice(
                *(start, expected, transform, self.practice, self.output.parent),
                seed=self.seed,
                device=device,
                key=key,
            )
            run.restore()
            with run:
                while not run.finished:
                    done = run.take_round(environment)
                    log.info("%s, round %d: %d of %d solved", self.name, run.step - 1, done.solved, done.episodes)
                    run.between_steps()
        result = run.result()
        chosen = best_round(result.rounds)
        counts = np.bincount(result.origins, minlength=len(ORIGINS)).tolist()
        info = {
            "key": key,
            "task": self.task.name,
            "model": str(self.checkpoint),
            "practice": {
                "rows": dict(zip(ORIGINS, counts, strict=True)),
                "round": chosen,
                "rounds": [asdict(done) for done in result.rounds],
                "control_steps": result.control_steps,
            },
            **provenance(),
        }
        write_samples(self.output, Transitions.from_matrix(result.matrix, self.task, layout), layout, info)
        discard(self.output.parent)
        log.info("%s: round %d is kept, %s", self.name, chosen, result.rounds[chosen])
