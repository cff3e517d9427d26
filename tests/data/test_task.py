import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_compositional_rl_datasets.composuite import AXES, CompoSuiteTask, all_tasks
from runtime.errors import TaskError

TASKS = st.sampled_from(all_tasks())


@given(TASKS)
def test_a_name_parses_back_to_its_task(task):
    assert CompoSuiteTask.parse(task.name) == task


@given(TASKS)
def test_the_condition_is_one_hot_on_every_axis(task):
    condition = task.one_hot
    assert condition.dtype == np.float32
    blocks = np.split(condition, np.cumsum([len(elements) for elements in AXES.values()])[:-1])
    for block, (axis, elements) in zip(blocks, AXES.items(), strict=True):
        assert block.sum() == 1
        assert elements[block.argmax()] == getattr(task, axis)


def test_there_is_a_task_for_every_combination_of_elements():
    assert len(set(all_tasks())) == len(all_tasks()) == math.prod(map(len, AXES.values()))


def test_an_unknown_element_is_named_with_the_nearest_known_one():
    with pytest.raises(TaskError, match=r"unknown objective 'Pickplace'.*did you mean 'PickPlace'"):
        CompoSuiteTask.parse("IIWA_Box_None_Pickplace")


@pytest.mark.parametrize("name", ["", "IIWA", "IIWA_Box_None", "IIWA_Box_None_Push_Push"])
def test_a_name_with_another_number_of_parts_is_refused(name):
    with pytest.raises(TaskError, match="expected Robot_Object_Obstacle_Objective"):
        CompoSuiteTask.parse(name)
