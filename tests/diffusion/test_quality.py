"""What the quality report finds in sets with known faults."""

import ast
import dataclasses

import numpy as np
import pytest

from diffusion.config import QualityConfig
from diffusion.quality import Marginals, assess, factor_distances, load_marginals, save_marginals
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.hdf5 import find_task_file, read_expert
from pipeline.loop.config import load_pipeline_config
from pipeline.loop.plan import generation_stages, policy_stages, rejected
from pipeline.loop.run import Run
from pipeline.loop.state import Iteration
from runtime.atomic import write_json
from runtime.errors import DataError
from runtime.program import PROJECT_ROOT
from tests.benchmark_axes import benchmark_axes

NAMES = ("IIWA_Box_None_Push", "IIWA_Plate_GoalWall_Shelf", "Jaco_Box_GoalWall_Push")
TRAIN = [CompoSuiteTask.parse(name) for name in NAMES]
TARGET = CompoSuiteTask.parse("IIWA_Box_GoalWall_Push")
RNG = np.random.default_rng(0)


def _set(rows, shift=0.0, seed=0):
    """Transitions that break no rule: unit quaternions, joints on the circle, actions and rewards in range."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 164)).astype(np.float32) + shift
    angles = rng.uniform(-1, 1, size=(rows, 7))
    for start in (0, COMPOSUITE.next_state.start):
        for part in COMPOSUITE.quaternions:
            quaternion = matrix[:, start + part.start : start + part.stop]
            quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
        for cosines, sines in COMPOSUITE.angles:
            matrix[:, start + cosines.start : start + cosines.stop] = np.cos(angles)
            matrix[:, start + sines.start : start + sines.stop] = np.sin(angles)
    matrix[:, COMPOSUITE.action] = rng.uniform(-1, 1, size=(rows, 8))
    matrix[:, COMPOSUITE.reward] = rng.uniform(size=rows)
    matrix[:, COMPOSUITE.terminal] = 0
    return matrix


@pytest.fixture(scope="module")
def marginals():
    matrix = np.concatenate([_set(2000, seed=i) for i in range(3)])
    return Marginals.of(matrix, np.repeat(np.arange(3), 2000), np.stack([task.one_hot for task in TRAIN]))


def _assess(matrix, marginals):
    return assess(matrix, TARGET.one_hot, COMPOSUITE, marginals, RNG)


def test_data_like_the_training_data_has_nothing_against_it(marginals):
    quality = _assess(_set(2000, seed=9), marginals)
    assert quality.distance < 0.05
    assert quality.violations == 0
    assert quality.duplicates == 0
    assert quality.rejected(QualityConfig()) is None


def test_a_shift_is_measured_in_standard_deviations(marginals):
    moved = _set(2000, seed=9)
    part = COMPOSUITE.factor_slices["goal"]
    columns = [
        i for i in range(part.start, part.stop) if not any(q.start <= i < q.stop for q in COMPOSUITE.quaternions)
    ]
    moved[:, columns] += 2.0 * marginals.std[columns]
    far = factor_distances(moved, TARGET.one_hot, COMPOSUITE, marginals)
    assert far["s_goal"] == pytest.approx(2.0 * len(columns) / (part.stop - part.start), abs=0.1)
    assert far["next_goal"] < 0.1
    assert _assess(moved, marginals).worst_factor == "s_goal"


def test_only_training_tasks_that_share_the_element_count():
    parts = [_set(1000, seed=0), _set(1000, shift=5.0, seed=1)]
    tasks = [CompoSuiteTask.parse("IIWA_Box_None_Push"), CompoSuiteTask.parse("IIWA_Plate_None_Shelf")]
    marginals = Marginals.of(np.concatenate(parts), np.repeat([0, 1], 1000), np.stack([t.one_hot for t in tasks]))
    plate = factor_distances(_set(1000, seed=2), tasks[1].one_hot, COMPOSUITE, marginals)
    box = factor_distances(_set(1000, seed=2), tasks[0].one_hot, COMPOSUITE, marginals)
    assert box["s_object"] < 0.1 < 0.5 < plate["s_object"]
    assert plate["s_obstacle"] < 0.1, "both share it: the nearer counts"


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("quaternions", slice(3, 7)),
        ("angles", slice(45, 59)),
        ("actions", COMPOSUITE.action),
        ("rewards", slice(COMPOSUITE.reward, COMPOSUITE.reward + 1)),
    ],
)
def test_rows_that_cannot_be_real_are_counted_by_kind(kind, part, marginals):
    matrix = _set(1000, seed=3)
    matrix[:250, part] = 2.0
    quality = _assess(matrix, marginals)
    assert getattr(quality, kind) == 0.25
    assert quality.violations == 0.25
    assert quality.rejected(QualityConfig(max_violations=0.2)) == "data quality: violations 0.250 above 0.2"


def test_joints_beyond_what_the_robot_showed_are_counted(marginals):
    matrix = _set(1000, seed=3)
    cosines, sines = COMPOSUITE.angles[0]
    matrix[:100, cosines], matrix[:100, sines] = np.cos(2.5), np.sin(2.5)
    quality = _assess(matrix, marginals)
    assert (quality.joints, quality.angles) == (0.1, 0.0)


def test_duplicates_are_counted_and_an_absent_body_has_no_quaternion(marginals):
    matrix = np.repeat(_set(250, seed=3), 4, axis=0)
    matrix[:, [*range(14, 28), *range(100, 114)]] = 0.0
    quality = _assess(matrix, marginals)
    assert quality.duplicates == 0.75
    assert quality.quaternions == 0


def test_the_marginals_travel_beside_the_generator(tmp_path, marginals):
    save_marginals(tmp_path / "m.npz", marginals)
    loaded = load_marginals(tmp_path / "m.npz", COMPOSUITE)
    for field in dataclasses.fields(Marginals):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(marginals, field.name))
    assert load_marginals(tmp_path / "absent.npz", COMPOSUITE) is None
    (tmp_path / "cut.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut\.npz: not a readable npz file.*; remove it to go on without"):
        load_marginals(tmp_path / "cut.npz", COMPOSUITE)
    assert _assess(_set(100), None).distance is None


@benchmark_axes
def test_real_expert_data_break_no_rule(shared):
    task = CompoSuiteTask.parse("IIWA_Box_None_Push")
    matrix = read_expert(find_task_file(shared / "expert_data", "expert", task), task).to_matrix(
        COMPOSUITE, timeouts_as_terminals=False
    )
    marginals = Marginals.of(matrix, np.zeros(len(matrix), int), task.one_hot[None])
    quality = assess(matrix, task.one_hot, COMPOSUITE, marginals, RNG)
    assert quality.violations < 0.03, quality
    assert quality.distance < 0.01


def test_no_policy_is_trained_on_a_hopeless_set_where_that_is_asked_for(tmp_path):
    paths = {"results_path": tmp_path, "data_path": tmp_path, "logs_path": tmp_path}
    overrides = {"paths": paths, "quality": {"skip": True, "max_violations": 0.5}, "policy": {"group": 2}}
    run = Run.of(load_pipeline_config(PROJECT_ROOT / "tests" / "tiny.yaml", overrides))
    iteration = Iteration(0, run.tasks.generated, sources={}, phase=None)
    stages = generation_stages(run, iteration)
    good = _assess(_set(50), None)
    for stage in stages:
        violations = 0.9 if stage is stages[0] else 0.1
        write_json(stage.quality_file, dataclasses.asdict(dataclasses.replace(good, violations=violations)))
    groups = policy_stages(run, iteration)
    tried = {member.task for group in groups for member in group.members}
    assert tried == {stage.task for stage in stages[1:]}
    assert max(len(group.members) for group in groups) == 2
    assert "violations 0.900 above 0.5" in rejected(run, iteration)[stages[0].task]
    overrides["quality"]["skip"] = False
    again = Run.of(load_pipeline_config(PROJECT_ROOT / "tests" / "tiny.yaml", overrides))
    everything = policy_stages(again, iteration)
    assert {member.task for group in everything for member in group.members} == {stage.task for stage in stages}


def test_the_papers_conventions_are_a_configuration_that_differs_where_it_says():
    paper = load_pipeline_config(PROJECT_ROOT / "config" / "pipeline" / "paper.yaml", {})
    default = load_pipeline_config(None, {})
    assert (paper.training.episode_ends, default.training.episode_ends) == ("reference", "drop")
    assert (paper.training.timeouts_as_terminals, default.training.timeouts_as_terminals) == (True, False)
    assert (paper.sampling.solver, paper.sampling.steps, paper.policy.fresh_episodes) == ("heun_churn", 128, 0)
    assert not paper.policy.canonical_quaternions
    assert paper.training.steps == default.training.steps == 100_000
    assert paper.network == default.network


def test_whether_a_time_out_is_an_end_is_said_by_the_configurations_and_by_no_functions_default():
    folders = ("corl", "diffusion", "offline_compositional_rl_datasets", "pipeline", "envs", "examples", "scripts")
    wanted, missing = [], []
    for path in (path for folder in folders for path in (PROJECT_ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                    if argument.arg == "timeouts_as_terminals":
                        (wanted if default is None else missing).append(f"{path.name}: {node.name}")
                assert "timeouts_as_terminals" not in [a.arg for a in (*node.args.args, *node.args.posonlyargs)]
    assert len(wanted) >= 3
    assert not missing
