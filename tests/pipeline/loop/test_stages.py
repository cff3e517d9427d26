"""What the run asks of its first stage, iteration by iteration."""

import pytest
import torch

from diffusion.loader import BatchLoader
from diffusion.normalizer import Normalizer
from diffusion.pool import Pool
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stage, generator_stage, generator_stages, practice_stage
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from runtime.errors import ConfigError


def _generator_stages(tmp_path, **training):
    overrides = {"paths": {"results_path": tmp_path}, "training": {"steps": 700, **training}}
    run = Run.of(load_pipeline_config(None, overrides))
    first, second = run.tasks.test[:2]
    iterations = [Iteration(0, (first, second), {}, None), Iteration(1, (second,), {0: (first,)}, None)]
    return [generator_stage(run, each) for each in iterations], first


def test_every_iteration_trains_from_scratch_with_as_many_steps(tmp_path):
    (begin, after), accepted = _generator_stages(tmp_path)
    assert [stage.initial for stage in (begin, after)] == [None, None]
    assert [stage.training.steps for stage in (begin, after)] == [700, 700]
    assert begin.sources == ()
    assert after.sources == ((accepted, begin.checkpoint.parent / accepted.name / "samples_0.npz"),)


def test_a_warm_start_goes_on_from_the_last_generator(tmp_path):
    (begin, after), _ = _generator_stages(tmp_path, warm_start_steps=90)
    assert (begin.initial, begin.training.steps) == (None, 700)
    assert (after.initial, after.training.steps) == (begin.checkpoint, 90)
    assert after.checkpoint.name == "model-90.pt"


def test_generators_of_an_iteration_differ_by_their_seeds_and_each_goes_on_from_its_own(tmp_path):
    overrides = {
        "paths": {"results_path": tmp_path},
        "generators": 3,
        "network": {"order": "state_first"},
        "training": {"warm_start_steps": 90},
        "practice": {"rounds": 1},
    }
    run = Run.of(load_pipeline_config(None, overrides))
    first = run.tasks.test[0]
    begin, after = (generator_stages(run, Iteration(i, (first,), {}, None)) for i in range(2))
    assert begin[0] == generator_stage(run, Iteration(0, (first,), {}, None))
    for what in ("seed", "checkpoint", "name", "number"):
        assert len({getattr(stage, what) for stage in (*begin, *after)}) == (6 if what in ("checkpoint", "name") else 3)
    assert [stage.initial for stage in after] == [stage.checkpoint for stage in begin]
    made = generation_stage(run, 0, first)
    assert (made.checkpoint, *made.others) == tuple(stage.checkpoint for stage in begin)
    assert practice_stage(run, 0, first).others == made.others
    with pytest.raises(ConfigError, match="generators 3: expected order state_first"):
        load_pipeline_config(None, overrides | {"network": {}})


def test_rows_of_expert_and_generated_sets_count_alike():
    few, many = (CompoSuiteTask.parse(name) for name in ("IIWA_Box_None_Push", "IIWA_Plate_None_Shelf"))
    sizes = ((100, few), (900, many))
    parts = [Transitions.from_matrix(torch.rand(n, 164).numpy(), task, COMPOSUITE) for n, task in sizes]
    pool = Pool.of(parts, COMPOSUITE, timeouts_as_terminals=False)
    normalizer = Normalizer.fit(torch.from_numpy(pool.matrix), COMPOSUITE)
    feed = BatchLoader(pool, normalizer, 10_000, seed=0)
    ((_, conditions),) = feed.batches(0, 1)
    share = (conditions == torch.from_numpy(few.one_hot)).all(1).float().mean()
    assert abs(share - 0.1) < 0.015  # five deviations
