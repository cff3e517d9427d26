import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import (
    EXPLORERS_LEAST_STD,
    STD_OFFSET,
    StateTransform,
    canonicalise,
)
from runtime.errors import DataError
from tests.data.test_layout import FINITE

TASK = CompoSuiteTask.parse("IIWA_Plate_ObjectDoor_Shelf")
STATES = np.random.default_rng(0).normal(3.0, 2.0, size=(50, COMPOSUITE.state_dim)).astype(np.float32)


@given(hnp.arrays(np.float32, (4, COMPOSUITE.state_dim), elements=FINITE))
def test_canonical_quaternions_are_the_same_rotations_whatever_their_sign(states):
    flipped = states.copy()
    for part in COMPOSUITE.relative_quaternions:
        flipped[:, part] *= -1
    canonical = canonicalise(states, COMPOSUITE)
    for part in COMPOSUITE.relative_quaternions:
        # A zero first component leaves both signs possible.
        decided = states[:, part.start] != 0
        np.testing.assert_array_equal(canonical[decided, part], canonicalise(flipped, COMPOSUITE)[decided, part])
        assert (canonical[:, part.start] >= 0).all()
    np.testing.assert_array_equal(canonicalise(canonical, COMPOSUITE), canonical)


def test_fitted_states_have_mean_0_and_a_deviation_just_below_1():
    transform = StateTransform.fit(STATES, COMPOSUITE, canonical_quaternions=False)
    seen = transform.apply(STATES)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-5)
    deviation = STATES.astype(float).std(axis=0)
    np.testing.assert_allclose(seen.std(axis=0), deviation / (deviation + STD_OFFSET), rtol=1e-4)


def test_what_does_not_vary_is_not_magnified():
    still = np.full((20, COMPOSUITE.state_dim), 0.5, np.float32)
    moved = still + 0.01
    offline = StateTransform.fit(still, COMPOSUITE).apply(moved)
    np.testing.assert_allclose(offline, 0.01 / STD_OFFSET, rtol=1e-4)
    online = StateTransform.fit(still, COMPOSUITE, least_std=EXPLORERS_LEAST_STD).apply(moved)
    np.testing.assert_allclose(online, 0.01 / EXPLORERS_LEAST_STD, rtol=1e-4)


@pytest.mark.parametrize("least_std", [None, EXPLORERS_LEAST_STD])
def test_hidden_velocities_read_0_and_nothing_else_does(least_std):
    seen = StateTransform.fit(STATES, COMPOSUITE, hide_velocities=True, least_std=least_std).apply(STATES + 5)
    hidden = np.zeros(COMPOSUITE.state_dim, bool)
    for part in COMPOSUITE.velocities:
        hidden[part] = True
    assert (seen[:, hidden] == 0).all() and (seen[:, ~hidden] != 0).all()


def test_signs_come_before_the_mean():
    flipped = STATES.copy()
    for part in COMPOSUITE.relative_quaternions:
        flipped[::2, part] *= -1
    one, other = (StateTransform.fit(states, COMPOSUITE) for states in (STATES, flipped))
    np.testing.assert_array_equal(one.apply(STATES), other.apply(flipped))
    raw = StateTransform.fit(STATES, COMPOSUITE, canonical_quaternions=False)
    assert (raw.apply(STATES) != raw.apply(flipped)).any()


def test_ids_are_joined_unscaled_and_unscaled_states_are_as_they_are():
    seen = StateTransform.fit(STATES, COMPOSUITE, task_ids=True).apply(STATES, TASK)
    assert seen.shape == (50, COMPOSUITE.observation_dim) and seen.dtype == np.float32
    states, ids = COMPOSUITE.split_ids(seen)
    assert (ids == TASK.one_hot).all()
    np.testing.assert_array_equal(states, StateTransform.fit(STATES, COMPOSUITE).apply(STATES))
    plain = StateTransform.unscaled(COMPOSUITE, canonical_quaternions=False)
    np.testing.assert_array_equal(plain.apply(STATES), STATES)
    assert (plain.dim, StateTransform.unscaled(COMPOSUITE, task_ids=True).dim) == (77, 93)


def test_both_states_of_a_transition_are_changed_and_the_rest_is_not():
    matrix = np.random.default_rng(1).normal(size=(9, COMPOSUITE.transition_dim)).astype(np.float32)
    before, transform = matrix.copy(), StateTransform.fit(STATES, COMPOSUITE, hide_velocities=True)
    transform.apply_to_transitions(matrix)
    for part in COMPOSUITE.states:
        np.testing.assert_array_equal(matrix[:, part], transform.apply(before[:, part]))
    for part in (COMPOSUITE.action, COMPOSUITE.reward, COMPOSUITE.terminal):
        np.testing.assert_array_equal(matrix[:, part], before[:, part])


def _through_a_checkpoint(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("options", [{}, {"hide_velocities": True, "canonical_quaternions": False, "task_ids": True}])
def test_a_transform_comes_back_from_a_checkpoint_to_the_bit(options):
    transform = StateTransform.fit(STATES, COMPOSUITE, **options)
    saved = _through_a_checkpoint(transform.state_dict())
    back = StateTransform.load(saved, COMPOSUITE, "model.pt: states", with_ids=transform.task_ids)
    np.testing.assert_array_equal(back.apply(STATES + 1, TASK), transform.apply(STATES + 1, TASK))
    assert back.state_dict() == transform.state_dict()


GOOD = StateTransform.unscaled(COMPOSUITE).state_dict()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (None, "is a NoneType, expected mean"),
        (torch.zeros(77), "is a Tensor, expected mean"),
        ({}, "mean is a NoneType, expected a list of 77 real numbers"),
        (GOOD | {"mean": [0.0] * 8}, "mean is a list of 8, expected a list of 77"),
        (GOOD | {"mean": torch.zeros(77)}, "mean is a Tensor"),
        (GOOD | {"std": ["1"] * 77}, "std is a list of 77, expected a list of 77 real numbers"),
        (GOOD | {"mean": [float("nan")] * 77}, "mean has numbers that are not finite"),
        (GOOD | {"mean": [1e300] * 77}, "mean has numbers that are not finite"),
        (GOOD | {"std": [0.0] * 77}, "std has numbers that are not above 0"),
        (GOOD | {"std": [1e-300] * 77}, "std has numbers that are not above 0"),
        (GOOD | {"std": [float("nan")] * 77}, "std has numbers that are not above 0"),
        (GOOD | {"task_ids": True}, "task_ids is True, expected False"),
        (GOOD | {"task_ids": 1}, "canonical_quaternions, task_ids are [True, 1], expected true or false"),
    ],
)
def test_anything_else_in_a_checkpoint_is_named(saved, message):
    with pytest.raises(DataError, match=f"^{re.escape('model.pt: states: ' + message)}"):
        StateTransform.load(saved, COMPOSUITE, "model.pt: states")
