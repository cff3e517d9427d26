import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_compositional_rl_datasets.composuite import OBJECTS, CompoSuiteTask, all_tasks
from offline_compositional_rl_datasets.composuite_splits import PUBLISHED, sample_tasks
from offline_compositional_rl_datasets.splits import Split, load_split, save_split
from runtime.errors import ConfigError, DataError
from tests.benchmark_axes import benchmark_axes

TASKS = len(all_tasks())


def test_the_component_wise_split_is_the_papers():
    split = load_split(CompoSuiteTask, PUBLISHED, "component-wise", 0)
    assert len(split.train) == len(split.test) == 32
    assert {task.robot for task in (*split.train, *split.test)} == {"IIWA"}
    assert len({*split.train, *split.test}) == 64
    training = split.train[:14]
    assert Counter(task.object for task in training) == {"Box": 7, "Dumbbell": 2, "Plate": 3, "Hollowbox": 2}
    assert Counter(task.objective for task in training) == {"PickPlace": 4, "Push": 2, "Shelf": 4, "Trashcan": 4}
    assert split.train[0].name == "IIWA_Box_ObjectDoor_Trashcan"
    assert split.test[-1].name == "IIWA_Plate_GoalWall_PickPlace"


def test_the_demo_holds_out_combinations_whose_elements_it_has_all_seen():
    split = load_split(CompoSuiteTask, PUBLISHED, "demo", 0)
    for axis in ("object", "obstacle", "objective"):
        seen = {getattr(task, axis) for task in split.train}
        assert {getattr(task, axis) for task in split.test} <= seen


@benchmark_axes
def test_seeded_splits_equal_the_recorded_ones(shared):
    golden = json.loads((shared / "golden" / "splits.json").read_text())
    names = golden["all_tasks_no_shuffle"]
    assert [task.name for task in all_tasks()] == names
    for case in golden["cases"]:
        split = sample_tasks(**case["args"])
        assert [task.name for task in split.train] == [names[i] for i in case["train"]], case["args"]
        assert [task.name for task in split.test] == [names[i] for i in case["test"]], case["args"]


@given(st.integers(0, TASKS), st.integers(0, 1000))
def test_a_default_split_divides_all_tasks(num_train, seed):
    split = sample_tasks("default", num_train, shuffling_seed=seed)
    assert len(split.train) == num_train
    assert {*split.train, *split.test} == set(all_tasks())


def test_a_holdout_split_has_one_train_task_with_the_element():
    split = sample_tasks("holdout", 56, holdout_elem="Hollowbox", shuffling_seed=3)
    assert [task.object == "Hollowbox" for task in split.train].count(True) == 1
    assert split.train[-1].object == "Hollowbox"
    assert len(split.test) == TASKS // len(OBJECTS) - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experiment_type": "default", "num_train": TASKS + 1}, f"num_train {TASKS + 1}: expected 0 to {TASKS}"),
        ({"experiment_type": "smallscale", "num_train": 1}, "smallscale_elem None: expected one of"),
        ({"experiment_type": "holdout", "holdout_elem": "Cup"}, "holdout_elem 'Cup'"),
        ({"experiment_type": "other"}, "experiment_type 'other'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        sample_tasks(**arguments)


def test_a_split_file_reads_back(tmp_path):
    split = Split(tuple(all_tasks()[:3]), tuple(all_tasks()[3:5]))
    save_split(tmp_path / "kind" / "split_7.json", split)
    assert load_split(CompoSuiteTask, tmp_path, "kind", 7) == split


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "expected an object with the lists train and test"),
        ('{"train": [["IIWA", "Box"]], "test": []}', "train must list"),
        ('{"train": [["IIWA", "Cup", "None", "Push"]], "test": []}', "unknown object 'Cup'"),
        ('{"train": [["IIWA", "Box", "None", "Push"]], "test": [["IIWA", "Box", "None", "Push"]]}', "in train and in"),
        (
            '{"train": [], "expert": [["IIWA", "Box", "None", "Push"]], "test": [["IIWA", "Box", "None", "Push"]]}',
            "expert",
        ),
        ('{"train": 5, "test": []}', "train must list"),
        ('{"train": ["IIWA_Box_None_Push"], "test": []}', "train must list"),
        ('{"train": [["IIWA", "Box", "None", ["Push"]]], "test": []}', "unknown objective"),
        ('{"train": [["IIWA", "Box", "None", "Push"], ["IIWA", "Box", "None", "Push"]], "test": []}', "a task twice"),
    ],
)
def test_a_malformed_split_file_is_named(tmp_path, content, message):
    path = tmp_path / "kind" / "split_0.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        load_split(CompoSuiteTask, tmp_path, "kind", 0)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("num_train", [-1, 0, 4])
def test_so_many_first_tasks_as_a_split_does_not_have_are_refused(num_train):
    split = Split(tuple(all_tasks()[:3]), ())
    assert split.first(2) == split.train[:2]
    with pytest.raises(ConfigError, match=f"--num_train {num_train}: expected 1 to 3"):
        split.first(num_train)


def test_a_missing_split_lists_the_kinds_there_are():
    with pytest.raises(DataError, match="component-wise"):
        load_split(CompoSuiteTask, PUBLISHED, "component-wize", 0)
    split = load_split(CompoSuiteTask, PUBLISHED, "component-wise", 0)
    assert CompoSuiteTask.parse("IIWA_Box_None_Push") in split.train
