"""A job that trains a group of policies, in the real simulator, gives what the jobs of its members give."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from corl.config import PolicyConfig
from corl.iql import IQLConfig
from corl.scores import PolicyScores
from corl.td3_bc import TD3BCConfig
from diffusion.quality import assess
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.jobs.attempts import Ledger
from pipeline.jobs.local import LocalSite
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages, policy_stages
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from pipeline.loop.steps import Steps
from pipeline.stages.policy import TrainPolicy, policies_in_groups
from runtime.atomic import write_json
from runtime.errors import ConfigError, DataError, JobError
from runtime.metrics import read_metrics
from runtime.program import PROJECT_ROOT

TASKS = [CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Box_None_PickPlace")]
POLICY = PolicyConfig(
    max_timesteps=20,
    batch_size=16,
    eval_freq=10,
    n_episodes=2,
    fresh_episodes=3,
    horizon=12,
    learners={"td3_bc": TD3BCConfig(hidden_dims=(16, 16)), "iql": IQLConfig(hidden_dims=(16, 16))},
)


def _stages(folder, name, policy):
    stages = []
    for i, task in enumerate(TASKS):
        data = folder / task.name / "samples_0.npz"
        if not data.exists():
            rng = np.random.default_rng(i)
            states = rng.normal(size=(100, 77)).astype(np.float32)
            actions = rng.uniform(-1, 1, size=(100, 8)).astype(np.float32)
            ends = np.zeros(100, bool)
            write_samples(
                data, Transitions(states, actions, ends.astype(np.float32), states, ends, ends, task), COMPOSUITE, {}
            )
        for seed in (0, 1):
            where = folder / name / f"{task.name}_RLseed{seed}"
            stages.append(TrainPolicy(task, data, True, policy, seed, where, device="cpu", threads=1))
    return stages


@pytest.mark.parametrize("algorithm", ["td3_bc", "iql"])
def test_a_group_in_the_simulator_scores_as_its_members_alone(algorithm, tmp_path):
    alone = _stages(tmp_path, "alone", dataclasses.replace(POLICY, algorithm=algorithm))
    for stage in alone:
        stage()
    together = _stages(tmp_path, "group", dataclasses.replace(POLICY, algorithm=algorithm, group=4))
    (group,) = policies_in_groups(together, 4)
    group = dataclasses.replace(group, threads=1)
    assert not group.is_done()
    group()
    assert group.is_done()
    scores_of = {}
    for one, two in zip(alone, together, strict=True):
        assert two.is_done(), "each member's result is there, and is that of the single job"
        assert one.key() == two.key()
        a, b = one.scores(), two.scores()
        scores_of[two] = b
        assert (a.solved, a.trials, a.episodes) == (b.solved, b.trials, b.episodes) == (a.solved, 3, 2)
        assert a.fresh_return == pytest.approx(b.fresh_return, abs=1e-3)
        rows = [read_metrics(stage.folder / "metrics.jsonl") for stage in (one, two)]
        for x, y in zip(*rows, strict=True):
            assert x == pytest.approx(y, rel=1e-2, abs=1e-3)
    written = json.loads(group.output.read_text())["members"]
    assert written == [stage.folder.name for stage in together]
    before = group.output.stat().st_mtime_ns
    group()
    assert group.output.stat().st_mtime_ns == before, "finished work is not done again"
    together[1].output.unlink()
    assert not group.is_done(), "a result that was lost is made again"
    group()
    assert group.is_done() and together[1].scores().solved == scores_of[together[1]].solved


def test_groups_take_neighbours_and_a_group_of_one_is_a_single_job(tmp_path):
    stages = _stages(tmp_path, "x", POLICY)
    assert policies_in_groups(stages, 1) == stages
    assert [len(group.members) for group in policies_in_groups(stages, 3)] == [3, 1]
    assert policies_in_groups(stages, 3)[0].members == tuple(stages[:3])
    first, second = (group.output.parent for group in policies_in_groups(stages, 2))
    assert first != second, "groups that run side by side do not wait for one another's lock"


def test_policies_that_diverge_leave_the_others_of_their_group_their_results(tmp_path):
    stages = _stages(tmp_path, "x", dataclasses.replace(POLICY, group=4))
    samples = read_samples(stages[-1].data, TASKS[1], COMPOSUITE)
    write_samples(
        stages[-1].data, dataclasses.replace(samples, rewards=samples.rewards + np.float32(3e38)), COMPOSUITE, {}
    )
    (group,) = policies_in_groups(stages, 4)
    with pytest.raises(DataError, match="2 of 4 policies have no result: the policy gives actions that are not finite"):
        dataclasses.replace(group, threads=1)()
    assert [stage.is_done() for stage in stages] == [True, True, False, False]
    with pytest.raises(DataError, match="the policy gives actions that are not finite"):
        stages[-1]()


def test_a_policy_that_is_asked_for_twice_is_refused_since_it_would_wait_for_itself(tmp_path):
    stages = _stages(tmp_path, "x", POLICY)
    with pytest.raises(ConfigError, match=f"{stages[0].name}: twice in a group of policies"):
        policies_in_groups([*stages, stages[0]], 5)
    with pytest.raises(ConfigError, match="seed -1: expected 0 to"):
        dataclasses.replace(stages[0], seed=-1)
    for name in ("rl_seeds", "middle_seeds"):
        with pytest.raises(ConfigError, match=f"{name} 0, 1, 0: expected one or more, none of them twice"):
            load_pipeline_config(None, {name: [0, 1, 0]})
        with pytest.raises(ConfigError, match=f"{name} nothing: expected one or more"):
            load_pipeline_config(None, {name: []})


def _steps(folder, monkeypatch, **overrides):
    """The steps of a run before stage 3 of its first iteration, every set generated."""
    monkeypatch.chdir(PROJECT_ROOT)
    paths = {name: folder / name for name in ("results_path", "data_path", "logs_path")}
    run = Run.of(load_pipeline_config(Path("tests/tiny.yaml"), {"paths": paths, **overrides}))
    ledger = Ledger(run.folder / "jobs.json")
    steps = Steps(run, LocalSite(run.jobs_folder), ledger)
    steps.begin(Iteration(0, run.tasks.generated, sources={}, phase=None))
    rng = np.random.default_rng(0)
    for stage in generation_stages(run, steps.state.current):
        matrix = rng.uniform(size=(8, 164)).astype(np.float32)
        write_samples(stage.output, Transitions.from_matrix(matrix, stage.task, COMPOSUITE), COMPOSUITE, {})
        quality = assess(matrix, stage.task.one_hot, COMPOSUITE, None, rng)
        write_json(stage.quality_file, dataclasses.asdict(quality))
    return steps


def test_the_results_of_a_group_that_failed_count_all_the_same(tmp_path, monkeypatch):
    steps = _steps(tmp_path, monkeypatch, policy={"group": 9})
    (group,) = policy_stages(steps.run, steps.state.current)
    solved = group.members[0]
    solved.folder.mkdir(parents=True)
    solved.finish(PolicyScores(2, 1, 5.0, 1, 5.0), solved.key())
    monkeypatch.setattr(steps, "_run", lambda stages, name, on_done: {group.name: "4 of 5 policies have no result"})
    steps.validate()
    assert {task: list(scores) for task, scores in steps.state.current.scores.items()} == {solved.task: [solved.seed]}
    assert solved.task not in steps.state.current.failed
    assert len(steps.state.current.failed) == len(steps.run.tasks.generated) - 1


def test_an_iteration_with_hopeless_sets_alone_ends_without_scores_and_one_whose_policies_failed_does_not(
    tmp_path, monkeypatch
):
    for skip in (True, False):
        steps = _steps(tmp_path / str(skip), monkeypatch, quality={"skip": skip, "max_violations": 0.0})
        stages = policy_stages(steps.run, steps.state.current)
        assert bool(stages) is not skip
        monkeypatch.setattr(steps, "_run", lambda stages, *_: {stage.name: "broken" for stage in stages})
        with contextlib.nullcontext() if skip else pytest.raises(JobError, match="no policy could be trained: broken"):
            steps.validate()
        assert steps.state.current.failed == (steps.run.tasks.generated if skip else ())
