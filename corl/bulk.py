"""Many policies at once in one process: the same steps as alone, one batched product where each had its own.

`train_policies` gives what `train_policy` gives for each (data set, seed) pair, up to the rounding of sums, and writes
the same files: a group that was killed can be continued as a group or one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from corl.batch import Batch
from corl.config import PolicyConfig
from corl.evaluate import Evaluation
from corl.policy import Policy
from corl.replay import join
from corl.run import PolicyRun, Snapshot
from corl.scores import PolicyScores
from corl.stacking import Stacked
from runtime import interrupt
from runtime.errors import DataError
from runtime.logs import progress

# submit(run's position, policy on the CPU, seeds): begins an evaluation elsewhere.
Submit = Callable[[int, Policy, Sequence[int]], "Future[Evaluation]"]


class Bulk:
    """Learners of one algorithm at the same step, trained together; `write_back` gives them their weights."""

    def __init__(self, runs: Sequence[PolicyRun]) -> None:
        self.runs = runs
        self.networks = Stacked([run.learner.networks for run in runs])
        self.data, first = join([run.data for run in runs], runs[0].device)
        self.first = torch.tensor(first, device=runs[0].device)[:, None] if any(first) else None

    def advance(self, steps: int, pause: Callable[[], bool] = interrupt.requested) -> dict[str, Tensor]:
        """Take so many steps, or a block of them where there is to be a pause; the losses (N,) of the last ones."""
        losses: dict[str, Tensor] = {}
        learner = self.runs[0].learner
        done = 0
        while done < steps and not (done and pause()):
            drawn = [run.draw(steps - done) for run in self.runs]
            rows = torch.stack([rows for rows, _ in drawn], dim=1)
            noise = [torch.stack(members, dim=1) for members in zip(*(noise for _, noise in drawn), strict=True)]
            for k in range(len(rows)):
                number = learner.total_it + 1
                own = tuple(values[k] for values in noise)
                losses |= learner.step(self.networks, self.batch(rows[k]), own, number)
                for run in self.runs:
                    run.learner.total_it = number
            done += len(rows)
        return losses

    def batch(self, rows: Tensor) -> Batch:
        """rows (N, B) of each member's own data to a batch with a leading dimension of members."""
        return self.runs[0].data.cut(self.data[rows if self.first is None else rows + self.first])

    def write_back(self) -> None:
        self.networks.write_back([run.learner.networks for run in self.runs])


@dataclass
class _Pending:
    """An evaluation under way while training goes on."""

    snapshot: Snapshot
    result: Future[Evaluation]


def train_policies(
    runs: Sequence[PolicyRun], config: PolicyConfig, submit: Submit, *, label: str = "policies"
) -> list[PolicyScores | DataError]:
    """Train all runs to the end and score them; a run that diverged has what was found out of it in its place.

    Evaluations run beside training, which does not wait for one before the next is due. Runs that were left at
    different steps catch up in their own cohorts.
    """
    pending: dict[int, _Pending] = {}
    lost: dict[int, DataError] = {}

    def settle(i: int) -> None:
        if i in pending:
            waiting = pending.pop(i)
            try:
                runs[i].record(waiting.snapshot, waiting.result.result())
            except DataError as error:
                lost[i] = error

    def save(i: int) -> None:
        try:
            runs[i].save()
        except DataError as error:
            lost[i] = error

    def kept() -> list[int]:
        return [i for i in range(len(runs)) if i not in lost]

    def to_be_saved() -> bool:
        """Whether a stop was asked for or a save is due. The latter does not wait for an evaluation."""
        evaluated = all(waiting.result.done() for waiting in pending.values())
        return interrupt.requested() or (evaluated and any(runs[i].due for i in cohort))

    bulk: Bulk | None = None
    losses: dict[str, Tensor] = {}
    done = sum(run.step for run in runs)
    with progress(config.max_timesteps * len(runs), label, done=done) as bar:
        while any(runs[i].step < config.max_timesteps for i in kept()):
            step = min(runs[i].step for i in kept())
            cohort = [i for i in kept() if runs[i].step == step]
            members = [runs[i] for i in cohort]
            if bulk is None or list(bulk.runs) != members:
                bulk, losses = Bulk(members), {}
            boundary = members[0].next_boundary()
            losses |= bulk.advance(boundary - step, to_be_saved)
            bulk.write_back()
            bar.update((members[0].step - step) * len(cohort))
            if members[0].step < boundary:
                for i in kept():
                    settle(i)
                for i in kept():
                    save(i)
                runs[0].leave_if_asked()
                continue
            for k, i in enumerate(cohort):
                settle(i)
                if i in lost:
                    continue
                snapshot = runs[i].snapshot({name: values[k] for name, values in losses.items()})
                result = submit(i, runs[i].policy(snapshot), runs[i].evaluation_seeds())
                pending[i] = _Pending(snapshot, result)
            losses = {}
            if interrupt.requested():
                for i in range(len(runs)):
                    settle(i)
                runs[0].leave_if_asked()
        for i in range(len(runs)):
            settle(i)
    scored = kept() if config.scored_afresh else []
    fresh = {i: submit(i, runs[i].chosen_policy(), runs[i].fresh_seeds()) for i in scored}
    return [
        lost[i] if i in lost else run.scores(fresh[i].result() if i in fresh else None) for i, run in enumerate(runs)
    ]
