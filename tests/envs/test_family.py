"""A family of tasks of one's own: what it may leave, what is checked of it, and how it is found by its name."""

import itertools
import sys
from dataclasses import dataclass

import gymnasium
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.composuite.family import CompoSuite
from envs.family import TaskFamily, find_family, is_installed, places
from envs.pool import EnvPool
from offline_compositional_rl_datasets.layout import Factor, FactoredLayout
from offline_compositional_rl_datasets.splits import covering_split
from offline_compositional_rl_datasets.task import Task
from runtime.errors import ConfigError, DataError, TaskError

EXAMPLES = ["examples.point_family:FAMILY", "examples.arm_family:FAMILY"]
AXES = (("size", ("small", "large")), ("place", ("here", "there", "away")))
LAYOUT = FactoredLayout((Factor("size", 1, "size"), Factor("place", 2, "place")), 2, AXES, ids_after="place")


@dataclass(frozen=True, order=True)
class BoxTask(Task):
    size: str
    place: str

    layout = LAYOUT


class BoxEnv(gymnasium.Env):
    """Observes the sum of its actions. Settings of a test are class attributes."""

    low, high, states, success = -1.0, 1.0, 3, "success"

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.states,), np.float64)
        self.action_space = gymnasium.spaces.Box(self.low, self.high, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total = np.zeros(self.states)
        return self.total, {}

    def step(self, action):
        self.total = self.total + np.resize(action, self.states)
        return self.total, 1, False, False, {self.success: self.total[0] > 1} if self.success else {}


def family_with(**settings):
    """A family whose environments have these settings."""
    env_class = type("Env", (BoxEnv,), settings)

    class Boxes(TaskFamily):
        name, task_class = "boxes", BoxTask

        def make_env(self, task, render_mode=None):
            return env_class()

    return Boxes()


TASK = BoxTask("small", "there")


def test_a_task_is_named_by_its_elements_and_parsed_back():
    assert TASK.name == "small_there" and TASK.label == "small there" and str(TASK) == "small_there"
    assert BoxTask.parse(TASK.name) == TASK
    np.testing.assert_array_equal(TASK.one_hot, [1, 0, 0, 1, 0])
    with pytest.raises(
        TaskError, match=r"unknown place 'ther': expected one of here, there, away; did you mean 'there'"
    ):
        BoxTask.parse("small_ther")
    with pytest.raises(TaskError, match="task 'small' has 1 parts: expected Size_Place"):
        BoxTask.parse("small")


def test_tasks_of_two_families_are_never_equal():
    @dataclass(frozen=True, order=True)
    class Other(Task):
        size: str
        place: str

        layout = LAYOUT

    assert Other("small", "there") != TASK


def test_all_tasks_are_every_combination():
    assert [task.elements for task in family_with().tasks()] == list(itertools.product(*(names for _, names in AXES)))


AXIS_SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@hypothesis.settings(deadline=None)
@given(sizes=AXIS_SIZES, seed=st.integers(0, 1000))
def test_a_drawn_split_shows_every_element_in_training_and_holds_out_half_where_it_can(sizes, seed):
    names = [f"axis{i}" for i in range(len(sizes))]
    axes = tuple((name, tuple(f"e{i}" for i in range(size))) for name, size in zip(names, sizes, strict=True))
    layout = FactoredLayout(tuple(Factor(name, 1, name) for name in names), 1, axes, ids_after=names[-1])
    task_class = dataclass(frozen=True, order=True)(
        type("Drawn", (Task,), {"__annotations__": dict.fromkeys(names, str), "layout": layout})
    )
    tasks = [task_class(*elements) for elements in itertools.product(*(elements for _, elements in axes))]
    split = covering_split(tasks, seed)
    assert sorted((*split.train, *split.test)) == sorted(tasks)
    for axis, elements in axes:
        assert {getattr(task, axis) for task in split.train} == set(elements)
    assert len(split.train) >= len(split.test)
    if max(sizes) <= len(tasks) // 4:
        assert len(split.train) == (len(tasks) + 1) // 2
    assert covering_split(tasks, seed) == split


def test_the_default_split_is_drawn_from_the_seed_and_a_file_goes_before_it(tmp_path):
    family = family_with()
    assert family.split("default", 1, tmp_path) == covering_split(family.tasks(), 1)
    assert family.split("default", 1, tmp_path) != family.split("default", 2, tmp_path)
    (tmp_path / "default").mkdir()
    file = tmp_path / "default" / "split_1.json"
    file.write_text('{"train": [["small", "here"]], "test": [["large", "away"]]}')
    split = family.split("default", 1, tmp_path)
    assert [task.name for task in (*split.train, *split.test)] == ["small_here", "large_away"]


def test_evaluation_gives_a_familys_environment_actions_within_one_and_cuts_it_off():
    env = family_with(low=-3.0, high=3.0).environment(TASK, horizon=2)
    assert env.action_space.low.min() == -1 and env.action_space.high.max() == 1
    state, info = env.reset(seed=0)
    assert state.dtype == np.float32 and info["success"] is False
    state, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(state, [3, 3, 3])
    assert (reward, terminated, truncated, info["success"]) == (1.0, False, False, True)
    assert env.step(np.ones(2, np.float32))[3], "the horizon"


def test_success_may_have_the_name_that_gymnasium_robotics_gives_it():
    env = family_with(success="is_success").environment(TASK)
    env.reset(seed=0)
    assert env.step(np.ones(2))[4]["success"] is False
    assert env.step(np.ones(2))[4]["success"] is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"states": 4}, r"family boxes: observations of small_there are Box.*, expected a Box of shape \(3,\)"),
        ({"high": np.inf}, "family boxes: actions of small_there are Box.*, expected finite bounds"),
    ],
)
def test_an_environment_that_does_not_fit_the_layout_is_refused_in_a_line(settings, message):
    with pytest.raises(TaskError, match=message):
        family_with(**settings).environment(TASK)


def test_an_environment_that_does_not_say_when_it_succeeds_is_refused_in_a_line():
    env = family_with(success="").environment(TASK)
    env.reset(seed=0)
    with pytest.raises(TaskError, match="family boxes: a step's info has nothing, expected success or is_success"):
        env.step(np.ones(2))


def test_what_a_family_lacks_is_said_in_a_line():
    family = family_with()
    for use, message in (
        (lambda: family.expert(TASK), r"family boxes: it has no experts \(expert is not written\)"),
        (lambda: family.state_setter(TASK), r"no simulator that is put into states \(set_state of its environments"),
        (lambda: family.drawn_environment(TASK), "family boxes: no pictures, its environments do not render rgb_array"),
        (
            lambda: type("Data", (TaskFamily,), {"name": "data", "task_class": BoxTask})().environment(TASK),
            r"family data: it has no simulator \(make_env is not written\)",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            use()
    assert not family.has("expert") and CompoSuite().has("expert")


def test_steps_per_second_are_the_familys_own_or_those_that_its_environments_are_drawn_at():
    assert family_with().steps_per_second() is None
    family = family_with(metadata={"render_fps": 50})
    assert family.steps_per_second() == 50
    type(family).control_frequency = 12.5
    assert family.steps_per_second() == 12.5, "pictures may be drawn at another rate"
    assert family_with(metadata={"render_fps": "fast"}).steps_per_second() is None
    assert type("Data", (TaskFamily,), {"name": "data", "task_class": BoxTask})().steps_per_second() is None
    assert [find_family(name).steps_per_second() for name in ("composuite", *EXAMPLES)] == [20, None, 20]


def test_a_family_is_checked_when_it_is_made():
    task_class = dataclass(frozen=True)(type("T", (Task,), {"__annotations__": {"size": str}, "layout": LAYOUT}))
    for settings, message in (
        ({"name": "My Boxes"}, "family 'My Boxes': expected a name of small letters"),
        ({"control_frequency": 0}, "family boxes: control_frequency 0, expected control steps per second, above 0"),
        ({"control_frequency": "20"}, "family boxes: control_frequency '20', expected control steps per second"),
        ({"task_class": task_class}, "its tasks have size, its layout the axes size, place"),
    ):
        with pytest.raises(TaskError, match=message):
            type("Boxes", (TaskFamily,), {"name": "boxes", "task_class": BoxTask, **settings})()


def test_an_element_that_would_break_a_name_is_refused():
    layout = FactoredLayout((Factor("size", 1, "size"),), 1, (("size", ("very_small",)),), ids_after="size")
    task_class = dataclass(frozen=True)(type("T", (Task,), {"__annotations__": {"size": str}, "layout": layout}))
    with pytest.raises(TaskError, match=r"size 'very_small': expected letters, digits, - and \. alone"):
        type("Boxes", (TaskFamily,), {"name": "boxes", "task_class": task_class})()


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder that modules are found in."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    places.cache_clear()
    for name in [name for name in sys.modules if name.startswith("labs_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"family 'labs_none:FAMILY': cannot be imported, ModuleNotFoundError: No module named 'labs_none'"),
        ("", r"family 'labs_none:FAMILY': cannot be imported, AttributeError: module 'labs_none' has no attribute"),
        ("FAMILY = 3", "family 'labs_none:FAMILY': is a int, expected an instance of a TaskFamily"),
        (
            "x = 1\ny = x.z\n",
            r"cannot be imported, AttributeError in .*labs_none.py:2: 'int' object has no attribute 'z'",
        ),
        ("def (", r"family 'labs_none:FAMILY': cannot be imported, SyntaxError"),
    ],
)
def test_a_family_that_cannot_be_imported_is_told_in_a_line(text, message, modules):
    if text is not None:
        (modules / "labs_none.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        find_family("labs_none:FAMILY")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["composite", "labs_none", "a b:c", ":FAMILY", "labs_none:", "os:system:x", "../a:B"])
def test_a_name_of_another_form_is_never_imported(name):
    with pytest.raises(ConfigError, match=r"expected .*composuite.* or a place such as my_package.my_module:FAMILY"):
        find_family(name)


def test_an_installed_package_gives_its_family_a_name_by_an_entry_point(modules):
    (modules / "labs_boxes.py").write_text("from examples.point_family import FAMILY\n")
    (modules / "labs_boxes-1.0.dist-info").mkdir()
    (modules / "labs_boxes-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: labs-boxes\nVersion: 1\n"
    )
    entries = "[icdg.families]\nlabs_points = labs_boxes:FAMILY\n"
    (modules / "labs_boxes-1.0.dist-info" / "entry_points.txt").write_text(entries)
    places.cache_clear()
    assert find_family("labs_points") is find_family("examples.point_family:FAMILY")
    assert is_installed("labs_points") and is_installed("composuite")
    assert not is_installed("labs_boxes:FAMILY"), "found by its place, which a file must not say"


@pytest.mark.parametrize("place", EXAMPLES)
def test_the_experts_of_the_examples_solve_their_tasks_and_random_actions_do_not(place):
    family, random = find_family(place), np.random.default_rng(0)
    for task in family.tasks()[::5]:
        expert, solved = family.expert(task), {}
        with EnvPool(task, 5, horizon=40) as environment:
            for name, policy in (("expert", expert), ("random", lambda s: random.uniform(-1, 1, (len(s), 2)))):
                states = environment.reset(range(5))
                for _ in range(40):
                    states, *_, success = environment.step(policy(states).astype(np.float32))
                solved[name] = success.sum()
        assert solved["expert"] == 5 and solved["random"] <= 2, task


@pytest.mark.parametrize("place", EXAMPLES)
def test_the_simulators_of_the_examples_are_put_into_recorded_states(place):
    family, random = find_family(place), np.random.default_rng(0)
    for task in family.tasks()[::7]:
        setter, env = family.state_setter(task), family.environment(task)
        state, _ = env.reset(seed=1)
        for _ in range(10):
            action = random.uniform(-1, 1, 2)
            seen = setter.set(state.astype(float), action)
            following, reward, *_ = env.step(action)
            reached, own_reward, ended = setter.step(action)
            np.testing.assert_allclose(seen, state, atol=1e-6)
            np.testing.assert_allclose(reached, following, atol=2e-5)
            assert abs(reward - own_reward) < 1e-5 and not ended
            state = following
        assert not setter.determined(np.full((1, len(state)), np.nan)).any()


def test_a_family_needs_a_folder_of_splits_only_for_what_it_does_not_draw(tmp_path):
    family = family_with()
    assert family.split("default", 1) == covering_split(family.tasks(), 1)
    expected = r"experiment_type half: family \w+ has no published splits, expected default, or a splits_path"
    with pytest.raises(ConfigError, match=expected):
        family.split("half", 1)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "split_1.json").write_text('{"train": [["small", "here"]], "test": [["large", "away"]]}')
    assert [task.name for task in family.split("half", 1, tmp_path).test] == ["large_away"]


def test_composuite_has_its_published_splits_by_itself_and_takes_others(tmp_path):
    family = find_family("composuite")
    assert len(family.split("component-wise", 0).train) == 32
    with pytest.raises(DataError, match=r"component-wise/split_0\.json: no such split file"):
        family.split("component-wise", 0, tmp_path)
