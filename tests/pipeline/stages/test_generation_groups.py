"""A job that draws the sets of several tasks gives what a job per task gives."""

import shutil

import numpy as np
import pytest

from diffusion.config import SamplerConfig
from diffusion.model import DiffusionModel
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.samples import read_samples
from pipeline.stages.generator import Generate, sets_in_groups
from runtime.errors import DataError
from tests.generators import barely_trained
from tests.recordings import write_random_recordings

KNOWN = CompoSuiteTask.parse("IIWA_Box_None_Push")
TASKS = [CompoSuiteTask.parse(f"IIWA_{name}") for name in ("Box_None_Shelf", "Plate_None_Push", "Plate_None_Shelf")]
SAMPLING = SamplerConfig(solver="dpmpp_2m", steps=3, num_samples=40, batch_size=20, sigma_max=20)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    write_random_recordings(folder / "data", [KNOWN])
    return barely_trained(folder, KNOWN)


def _stages(checkpoint, folder):
    there = shutil.copytree(checkpoint.parent, folder / checkpoint.parent.name) / checkpoint.name
    return [Generate(task, there, SAMPLING, seed=0) for task in TASKS]


def test_a_group_draws_what_its_members_draw_and_loads_the_generator_once(checkpoint, tmp_path, monkeypatch):
    alone, together = _stages(checkpoint, tmp_path / "alone"), _stages(checkpoint, tmp_path / "together")
    for stage in alone:
        stage()
    loaded = []
    load = DiffusionModel.load
    monkeypatch.setattr(DiffusionModel, "load", lambda path, *more: loaded.append(path) or load(path, *more))
    (group,) = sets_in_groups(together, 3)
    assert not group.is_done()
    group()
    assert group.is_done() and loaded == [together[0].checkpoint]
    for one, two in zip(alone, together, strict=True):
        assert two.is_done() and one.key() == two.key()
        a, b = (read_samples(stage.output, stage.task, COMPOSUITE) for stage in (one, two))
        np.testing.assert_array_equal(
            a.to_matrix(COMPOSUITE, timeouts_as_terminals=False), b.to_matrix(COMPOSUITE, timeouts_as_terminals=False)
        )


def test_a_group_draws_again_what_was_lost_and_nothing_else(checkpoint, tmp_path):
    stages = _stages(checkpoint, tmp_path)
    (group,) = sets_in_groups(stages, 3)
    group()
    stages[1].output.unlink()
    kept = [stage.output.stat().st_mtime_ns for stage in (stages[0], stages[2])]
    assert not group.is_done()
    group()
    assert group.is_done() and stages[1].is_done()
    assert kept == [stage.output.stat().st_mtime_ns for stage in (stages[0], stages[2])]


def test_a_set_that_cannot_be_drawn_leaves_the_others_theirs(checkpoint, tmp_path, monkeypatch):
    stages = _stages(checkpoint, tmp_path)
    draw = Generate.draw

    def broken(self, models, key):
        if self.task == TASKS[1]:
            raise DataError("the generator gave values that are not finite")
        draw(self, models, key)

    monkeypatch.setattr(Generate, "draw", broken)
    (group,) = sets_in_groups(stages, 3)
    with pytest.raises(DataError, match="1 of 3 sets were not drawn: the generator gave values that are not finite"):
        group()
    assert [stage.is_done() for stage in stages] == [True, False, True]


def test_groups_have_locks_of_their_own_and_a_group_of_one_is_a_single_job(checkpoint, tmp_path):
    stages = _stages(checkpoint, tmp_path)
    assert sets_in_groups(stages, 1) == stages
    group, alone = sets_in_groups(stages, 2)
    assert group.members == tuple(stages[:2]) and alone is stages[2]
    assert group.output.parent not in {stage.output.parent for stage in stages}
