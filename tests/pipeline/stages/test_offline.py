"""Split families, and offline training, evaluation and fine-tuning as one would run them."""

import csv
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corl.finetune import load_agent
from corl.multitask_run import load_config
from corl.online import read_history
from offline_compositional_rl_datasets.composuite import (
    AXES,
    COMPOSUITE,
    OBJECTS,
    ROBOTS,
    CompoSuiteTask,
    all_tasks,
    tasks_of,
)
from offline_compositional_rl_datasets.composuite_splits import (
    KINDS,
    PUBLISHED,
    draw_split,
    find_split,
    get_partial_task_list,
    get_task_list,
)
from offline_compositional_rl_datasets.splits import Split, load_split, save_split, split_file
from pipeline.commands.offline import evaluate_offline, finetune, key_values, parse_authors_flags, train_offline
from pipeline.stages.offline import newest_checkpoint
from pipeline.stages.score_table import SCORES_FILE, read_score_table
from runtime.errors import ConfigError, DataError
from tests.benchmark_axes import benchmark_axes
from tests.recordings import write_random_recordings

SEEDS = st.integers(0, 10_000)
NAMES = ("IIWA_Box_None_Push", "IIWA_Box_None_Trashcan", "IIWA_Plate_None_Push")
TASKS = [CompoSuiteTask.parse(name) for name in NAMES]


@benchmark_axes
def test_every_family_has_its_published_sizes():
    default, compositional = draw_split("default", 0), draw_split("compositional", 0)
    assert (len(default.train), len(default.test), len(compositional.expert)) == (224, 32, 76)
    holdout, component = draw_split("holdout", 0, "IIWA"), draw_split("component-wise", 0)
    assert (len(holdout.train), len(holdout.test)) == (56, 63)
    assert (len(component.train), len(component.test)) == (32, 32)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, element=st.sampled_from(sorted({e for elements in AXES.values() for e in elements})))
def test_every_family_has_its_shares_and_properties(seed, element):
    default = draw_split("default", seed)
    assert len(default.train) == len(all_tasks()) * 7 // 8
    assert set(default.train) | set(default.test) == set(all_tasks())
    compositional = draw_split("compositional", seed)
    assert set(compositional.expert) <= set(compositional.train)
    assert [sum(t.robot == robot for t in compositional.expert) for robot in ROBOTS] == [19] * len(ROBOTS)
    assert len(set(compositional.expert)) == len(compositional.expert)
    holdout = draw_split("holdout", seed, element)
    having = [task for task in all_tasks() if element in task.elements]
    assert (len(holdout.train), len(holdout.test)) == (56, len(having) - 1)
    assert sum(element in task.elements for task in holdout.train) == 1
    assert all(element in task.elements for task in holdout.test)
    assert not set(holdout.train) & set(holdout.test)
    component = draw_split("component-wise", seed)
    assert sorted((*component.train, *component.test)) == sorted(tasks_of("IIWA"))
    assert len(component.train) == len(tasks_of("IIWA")) // 2
    assert {task.object for task in component.train[:14]} == set(OBJECTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_split_and_another_seed_another(kind):
    element = "IIWA" if kind == "holdout" else None
    assert draw_split(kind, 3, element) == draw_split(kind, 3, element)
    assert draw_split(kind, 3, element) != draw_split(kind, 4, element)


def test_a_file_goes_before_the_drawn_split_and_an_unknown_family_is_named(tmp_path):
    own = Split(tuple(TASKS[:1]), tuple(TASKS[1:]))
    save_split(split_file(tmp_path, "default", 0), own)
    assert find_split(tmp_path, "default", 0) == own
    assert find_split(tmp_path, "default", 1) == draw_split("default", 1)
    drawn = draw_split("compositional", 1)
    save_split(split_file(tmp_path, "compositional", 1), drawn)
    assert load_split(CompoSuiteTask, tmp_path, "compositional", 1) == drawn
    with pytest.raises(DataError, match="no such split file"):
        find_split(tmp_path, "compositonal", 0)
    with pytest.raises(ConfigError, match="expected one of default"):
        draw_split("smallscale", 0)
    with pytest.raises(ConfigError, match="holdout_elem"):
        draw_split("holdout", 0)


def test_an_axis_of_more_elements_than_a_component_wise_split_can_show_is_refused(monkeypatch):
    monkeypatch.setitem(AXES, "object", (*AXES["object"], *(f"Other{i}" for i in range(15 - len(AXES["object"])))))
    layout = dataclasses.replace(COMPOSUITE, axes=tuple(AXES.items()))
    monkeypatch.setattr(CompoSuiteTask, "layout", layout)
    with pytest.raises(ConfigError, match="14 tasks cannot show 15 of the axis object"):
        draw_split("component-wise", 0)


def test_the_published_component_wise_split_is_the_one_that_is_read():
    split = find_split(PUBLISHED, "component-wise", 0)
    assert split.train[0].name == "IIWA_Box_ObjectDoor_Trashcan"
    assert split.test[0].name == "IIWA_Dumbbell_GoalWall_Shelf"


def test_task_lists_have_the_authors_names_and_expert_tasks_leave_train(tmp_path):
    name, train, expert, test = get_task_list(tmp_path, "medium", "compositional", None, 2)
    split = draw_split("compositional", 2)
    assert (name, expert, test) == ("medium_compositional_2", list(split.expert), list(split.test))
    assert set(train) == set(split.train) - set(expert)
    assert len(expert) == 19 * len(ROBOTS)
    name, train, expert, _ = get_task_list(tmp_path, "expert", "holdout", "IIWA", 0)
    assert (name, expert) == ("expert_IIWA_holdout_0", None)
    kept, removed = get_partial_task_list(train, ["IIWA"], 10)
    assert len(kept) == 10
    assert [("IIWA" in task.elements) for task in removed] == [True]


def test_keys_and_values_are_flags_too():
    given = ["algo=bc", "dataset.split=holdout", "dataset.partial.use=True", "dataset.partial.remove_elems=[IIWA, Box]"]
    expected = ["--algo", "bc", "--dataset_split", "holdout", "--dataset_partial_use"]
    expected += ["--dataset_partial_remove_elems", "IIWA", "Box"]
    assert key_values([*given, "dataset.holdout_elem=None", "--seed", "3"]) == [*expected, "--seed", "3"]


def _prepare(root):
    write_random_recordings(root / "data", TASKS[:2])
    save_split(split_file(root / "splits", "default", 0), Split(tuple(TASKS[:2]), tuple(TASKS[2:])))


def _train(root, algo, steps=6):
    flags = [f"algo={algo}", "dataset.type=expert", f"dataset.dir={root / 'data'}", "--train_steps", str(steps)]
    flags += ["--batch_per_task", "8", f"dataset.task_list_path={root / 'splits'}", "--results_path", str(root)]
    parse_authors_flags(train_offline, flags)
    return root / "_offline_training" / "expert" / "default" / "full" / algo / "0"


def test_an_agent_is_trained_offline_evaluated_and_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.setenv("ICDG_CPUS", "1")  # no processes for episodes this short
    _prepare(tmp_path)
    folder = _train(tmp_path, "cp_iql")
    assert load_config(newest_checkpoint(folder, 0))[0].batch_size == 16
    where = [f"dataset.task_list_path={tmp_path / 'splits'}", "algo=cp_iql", "--results_path", str(tmp_path)]
    parse_authors_flags(evaluate_offline, [*where, "--n_steps", "4", "--n_trajs", "2"])
    evaluated = tmp_path / "_evaluation" / "_offline_training" / "expert" / "default" / "full" / "cp_iql" / "0"
    with (evaluated / "task_-1" / "train_returns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["traj", "step", *(task.name for task in TASKS[:2])]
    assert [(row["traj"], row["step"]) for row in rows] == [(str(i), str(t)) for i in range(2) for t in range(4)]
    scores = read_score_table(evaluated / "task_-1" / SCORES_FILE)
    assert [(row.task, row.method) for row in scores] == [
        (TASKS[2].name, "cp_iql"), (TASKS[0].name, "cp_iql train"), (TASKS[1].name, "cp_iql train"),
    ]  # fmt: skip
    assert {(row.step, row.trials) for row in scores} == {(6, 2)}
    sizes = ["--n_steps", "30", "--update_start_step", "10", "--batch_size", "8", "--eval_freq", "15", "--horizon", "5"]
    parse_authors_flags(finetune, [*where, *sizes, "--n_eval_episodes", "1"])
    run = tmp_path / "_finetune_training" / "expert" / "default" / "full" / "cp_iql" / "0" / "10" / "task_0"
    assert [row["global_step"] for row in read_history(run)] == [15, 30]
    assert [(row.method, row.step) for row in read_score_table(run / SCORES_FILE)] == [
        ("finetune", 15),
        ("finetune", 30),
    ]
    with pytest.raises(ConfigError, match="has 1 test tasks"):
        parse_authors_flags(finetune, [*where, "--task_id", "1"])


def test_what_cannot_be_evaluated_or_trained_on_is_refused(tmp_path):
    _prepare(tmp_path)
    where = [f"dataset.task_list_path={tmp_path / 'splits'}", "--results_path", str(tmp_path)]
    evaluation, training = evaluate_offline, train_offline
    for main, flags, message in (
        (evaluation, ["--n_steps", "0"], "--horizon 0: expected at least 1"),
        (evaluation, ["--n_trajs", "-1"], "--n_episodes -1: expected at least 1"),
        (evaluation, ["--task_id", "-2"], "--task_id -2: expected at least -1"),
        (training, ["dataset.holdout_elem=IIWA"], "a split of the kind default holds out no element"),
        (training, ["--dataset_partial_use", "--dataset_partial_n_tasks", "0"], "partial_n_tasks 0"),
        (training, ["dataset.partial.use=True", "dataset.partial.remove_elems=[IIWO]"], "partial_remove_elems IIWO"),
        (training, ["dataset.partial.use=True", "dataset.dir=x"], "no training task is left"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_authors_flags(main, [*where, *flags])
    save_split(split_file(tmp_path / "splits", "default", 0), Split(tuple(TASKS), ()))
    with pytest.raises(ConfigError, match="--no_get_train_results: the split has no other tasks"):
        parse_authors_flags(evaluation, [*where, "--no_get_train_results"])


def test_a_checkpoint_of_another_kind_is_not_fine_tuned(tmp_path):
    torch.save({"actor": {}, "hidden": [8]}, tmp_path / "policy.pt")
    torch.save([1], tmp_path / "list.pt")
    lacks = "policy.pt: lacks config, .*expected a checkpoint of a multitask agent"
    for name, message in (("policy.pt", lacks), ("list.pt", "list.pt: holds a list, expected the mapping")):
        with pytest.raises(DataError, match=message):
            load_agent(tmp_path / name, COMPOSUITE, seed=0, device=torch.device("cpu"))


def test_behaviour_cloning_cannot_be_fine_tuned_and_iql_keeps_its_weights_and_rate(tmp_path):
    _prepare(tmp_path)
    with pytest.raises(ConfigError, match="learns nothing from rewards"):
        load_agent(newest_checkpoint(_train(tmp_path, "cp_bc", 2), 0), COMPOSUITE, seed=0, device=torch.device("cpu"))
    path = newest_checkpoint(_train(tmp_path, "iql", 4), 0)
    agent, _ = load_agent(path, COMPOSUITE, seed=0, device=torch.device("cpu"))
    stored = load_config(path)[1]
    for name, weight in agent.learner.actor.state_dict().items():
        assert torch.equal(weight, stored["actor"][name])
    assert agent.learner.max_steps == math.inf
    assert agent.learner.cosine(1000) == 1.0, "the first rate throughout"
    assert (
        agent.explore(torch.zeros(2, COMPOSUITE.observation_dim))
        - agent.greedy(torch.zeros(2, COMPOSUITE.observation_dim))
    ).abs().max() > 0
