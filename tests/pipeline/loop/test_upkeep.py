"""Accepted sets and generators that are gone or damaged when they are needed again, with real jobs on this machine."""

import shutil
from decimal import Decimal

import numpy as np
import pytest

from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.hdf5 import Episode, task_file, write_expert
from offline_compositional_rl_datasets.samples import read_samples
from pipeline.jobs.attempts import Ledger
from pipeline.jobs.queue import make_site
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages, generator_stage, source_stages
from pipeline.loop.run import Run
from pipeline.loop.runner import open_folder
from pipeline.loop.selection import Score, Selection, Threshold
from pipeline.loop.state import Iteration
from pipeline.loop.state_file import save_state
from pipeline.loop.steps import Steps
from pipeline.loop.upkeep import is_sound
from runtime.atomic import is_complete, side_file, verify
from runtime.checkpoint import load_checkpoint
from runtime.errors import DataError
from tests.conftest import ROOT


def _run(folder):
    paths = {f"{name}_path": folder / name for name in ("data", "results", "logs")}
    settings = {"paths": paths, "collect": {"episodes": 1}, "cluster": {"kind": "local"}}
    return Run.of(load_pipeline_config(ROOT / "tests" / "tiny.yaml", settings))


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """A run whose first iteration made and accepted two sets, its second begun with them."""
    folder, random, steps = tmp_path_factory.mktemp("run"), np.random.default_rng(0), 20
    run = _run(folder)
    for task in run.tasks.train:
        states = random.normal(size=(steps, COMPOSUITE.state_dim)).astype(np.float32)
        actions = random.uniform(-1, 1, (steps, COMPOSUITE.action_dim)).astype(np.float32)
        episode = Episode(states, actions, np.zeros(steps, np.float32), np.zeros(steps, np.float32), terminated=False)
        write_expert(task_file(run.paths.data_path, "expert", task), [episode], task)
    first = Iteration(0, run.tasks.generated, {}, None)
    generator_stage(run, first)()
    good, bad = run.tasks.generated[:2], run.tasks.generated[2:]
    for stage in generation_stages(run, first)[:2]:
        stage()
    run.folder.mkdir(parents=True)
    scores = {task: {0: Score(2, 2)} for task in good}
    state = run.state.begin(first).update(scores=scores).finish(Selection(good, bad, Threshold(Decimal(0))))
    save_state(run.state_file, state.begin(Iteration(1, bad, state.accepted(), None)))
    return folder


@pytest.fixture
def steps(accepted, tmp_path):
    """The steps of a copy of that run."""
    shutil.copytree(accepted, tmp_path / "run")
    run = open_folder(_run(tmp_path / "run"))
    ledger = Ledger(run.folder / "jobs.json")
    return Steps(run, make_site(run.config.cluster, run.jobs_folder, ledger, run.folder / "code"), ledger)


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_accepted_sets_that_are_gone_or_damaged_are_made_again_as_they_were(steps, caplog):
    deleted, damaged = source_stages(steps.run, steps.state.current)
    before = [read_samples(stage.output, stage.task, COMPOSUITE) for stage in (deleted, damaged)]
    shutil.rmtree(deleted.output.parent)
    _flip_a_byte(damaged.output)
    steps.train_generator()
    assert f"the set of {deleted.task}, accepted in iteration 0, is gone or damaged; it is made again" in caplog.text
    assert f"{damaged.output}: damaged, its checksum differs" in caplog.text
    for stage, old in zip((deleted, damaged), before, strict=True):
        new = read_samples(stage.output, stage.task, COMPOSUITE)
        np.testing.assert_array_equal(new.states, old.states)
    assert is_sound(generator_stage(steps.run, steps.state.current).output), "and the generator has learned from them"


def test_an_accepted_set_that_is_gone_with_its_generator_is_named_with_its_iteration(steps):
    stage = source_stages(steps.run, steps.state.current)[0]
    stage.output.unlink()
    _flip_a_byte(stage.checkpoint)
    told = (
        rf"^{stage.output}: the set of {stage.task}, accepted in iteration 0, is gone .*{stage.checkpoint.name}, which"
    )
    with pytest.raises(DataError, match=told):
        steps.train_generator()


def test_accepted_sets_that_the_generator_has_learned_from_are_not_made_again(steps, caplog):
    it = steps.state.current
    generator_stage(steps.run, it)()
    for stage in source_stages(steps.run, it):
        stage.output.unlink()
    steps.train_generator()
    assert "accepted sets are gone, but the generator has learned from them" in caplog.text
    assert not any(is_complete(stage.output) for stage in source_stages(steps.run, it))


def test_a_damaged_artifact_is_refused_by_whoever_reads_it(steps):
    stage = source_stages(steps.run, steps.state.current)[0]
    for path, read in (
        (stage.output, lambda path: read_samples(path, stage.task, COMPOSUITE)),
        (stage.checkpoint, load_checkpoint),
    ):
        read(path)
        _flip_a_byte(path)
        with pytest.raises(DataError, match=rf"^{path}: damaged, its checksum differs"):
            read(path)
        side_file(path).unlink()
        verify(path)


def test_a_damaged_generator_is_trained_again(steps, caplog):
    first = steps.state.iterations[0]
    checkpoint = generator_stage(steps.run, first).checkpoint
    _flip_a_byte(checkpoint)
    assert not is_sound(checkpoint)
    assert not is_complete(checkpoint)
    assert f"{checkpoint}: damaged" in caplog.text
