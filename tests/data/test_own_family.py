"""The generator is tied to a layout, not to CompoSuite: the worked example of another family."""

import numpy as np
import pytest

from diffusion.denoisers import DenoiserConfig, build
from examples.point_family import AXES, HELD_OUT, TASKS, PointEnv, demonstrate, point_layout, results, success
from offline_compositional_rl_datasets.hdf5 import Episode, read_expert, write_expert
from offline_compositional_rl_datasets.layout import COMPOSUITE
from offline_compositional_rl_datasets.samples import read_samples, write_samples
from runtime.errors import DataError


def test_the_layout_of_another_family_has_its_own_tokens_and_sizes():
    layout = point_layout()
    assert (layout.state_dim, layout.condition_dim, layout.transition_dim) == (8, 8, 20)
    assert [token.name for token in layout.tokens] == [
        "s_body", "s_place", "s_wind", "action", "reward", "next_body", "next_place", "next_wind", "terminal",
    ]  # fmt: skip
    network = build(layout, DenoiserConfig(hidden=16, depth=1, heads=2))
    assert network.encoders["body"].weight.shape == (2, 2, 16), "an encoder per body"
    assert network.encoders["place"].weight.shape == (3, 4, 16)


def test_the_held_out_tasks_are_new_combinations_of_known_elements():
    given = [task for task in TASKS if task not in HELD_OUT]
    for axis, elements in AXES.items():
        assert {getattr(task, axis) for task in given} == set(elements)


def test_the_expert_reaches_its_place_and_random_actions_do_not():
    random = np.random.default_rng(0)
    task = HELD_OUT[0]

    def expert(states):
        env = PointEnv(task)
        env.position = states[0, :2].astype(float)
        return env.expert()[None]

    assert success(task, expert, random) == 1.0
    assert success(task, lambda states: random.uniform(-1, 1, (1, 2)), random) < 0.5


def test_policies_of_tasks_that_nobody_demonstrated_reach_their_places(tmp_path):
    for _, rate, wrong in results(tmp_path, HELD_OUT[:2], steps=800, samples=1000, policy_steps=600):
        assert rate > 0.8
        assert wrong < 0.04, "of steps up to 0.2 long, with a wind of 0.05"


def test_transitions_of_another_family_go_through_a_matrix_and_back():
    layout = point_layout()
    data = demonstrate(TASKS[0], 2, np.random.default_rng(0))
    back = type(data).from_matrix(data.to_matrix(layout, timeouts_as_terminals=True), TASKS[0], layout)
    np.testing.assert_array_equal(back.next_states, data.next_states)
    data.validate("demonstrations", layout)


def test_samples_of_another_family_are_written_and_read(tmp_path):
    layout, path = point_layout(), tmp_path / "samples_0.npz"
    data = demonstrate(TASKS[0], 2, np.random.default_rng(0))
    write_samples(path, data, layout, {})
    back = read_samples(path, TASKS[0], layout)
    for name in ("states", "actions", "rewards", "next_states", "terminals"):
        np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
    with pytest.raises(DataError, match=r"observations has shape \(50, 8\), expected \(50, 77\)"):
        read_samples(path, None, COMPOSUITE)
    with pytest.raises(DataError, match=r"observations has shape \(50, 8\), expected \(50, 77\)"):
        write_samples(tmp_path / "other.npz", data, COMPOSUITE, {})
    assert not (tmp_path / "other.npz").exists()


def test_recorded_actions_of_another_family_are_checked_when_they_are_read(tmp_path):
    layout, path, task = point_layout(), tmp_path / "data.hdf5", TASKS[0]
    data = demonstrate(task, 1, np.random.default_rng(0))
    for largest in (1.0, -40.0):
        data.actions[3, 1] = largest
        write_expert(path, [Episode(data.states, data.actions, data.rewards, data.rewards, True)], task, layout)
        if largest == 1.0:
            np.testing.assert_array_equal(read_expert(path, task, layout).actions, data.actions)
    with pytest.raises(DataError, match=r"actions has -40 in row 3, expected actions in \[-1, 1\]"):
        read_expert(path, task, layout)
