"""Offline training of one policy with evaluations on the way; resumable, with metrics and results as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from corl.evaluate import Evaluation
from corl.policy import Policy
from corl.run import PolicyRun
from corl.scores import PolicyScores
from runtime.logs import progress

Evaluate = Callable[[Policy, Sequence[int]], Evaluation]


def train_policy(run: PolicyRun, evaluate: Evaluate, *, label: str = "policy") -> PolicyScores:
    """Train on the run's data alone, evaluating in the simulator by `evaluate(policy, seeds)`.

    Writes the two best checkpoints and `metrics.jsonl` into the run's folder. A run that was killed continues where it
    was at most `checkpoint_seconds` before (and evaluates again what it was just evaluating), if it had the same `key`,
    and ends with the same numbers as one that was not; the caller removes `resume.pt` once it has written the scores
    down. `corl.bulk` is the fast way for many policies at once.
    """
    config = run.config
    with progress(config.max_timesteps, label, done=run.step) as bar, run:
        while run.step < config.max_timesteps:
            boundary = run.next_boundary()
            losses: dict[str, Any] = {}
            while run.step < boundary:
                for of_step in run.advance(boundary - run.step):
                    losses |= of_step
                    bar.update(1)
                if run.step < boundary:
                    run.between_steps()
            result = evaluate(run.current_policy(), run.evaluation_seeds())
            run.record(run.snapshot(losses), result)
            bar.update(0, success=f"{result.solved}/{result.episodes}", mean_return=result.mean_return)
            run.leave_if_asked()
    fresh = evaluate(run.chosen_policy(), run.fresh_seeds()) if config.scored_afresh else None
    return run.scores(fresh)
