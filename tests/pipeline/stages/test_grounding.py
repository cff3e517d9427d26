"""Grounded transitions are the simulator's own."""

import numpy as np

from envs.composuite.env import CompoSuiteEnv
from envs.composuite.state_setter import CompoSuiteStateSetter
from envs.experts import expert_for
from offline_compositional_rl_datasets.composuite import COMPOSUITE, CompoSuiteTask
from offline_compositional_rl_datasets.state_transform import canonicalise
from offline_compositional_rl_datasets.transitions import Transitions
from pipeline.stages.grounding import ground

FINGERS = 73  # their positions and velocities come last
TASK = CompoSuiteTask.parse("IIWA_Plate_ObjectWall_PickPlace")


def _recorded(steps=25):
    """The expert's first steps: nothing is in contact with the fingers yet."""
    env, expert, rows = CompoSuiteEnv(TASK), expert_for(TASK), []
    state, _ = env.reset(seed=3)
    for _ in range(steps):
        action = np.clip(expert(state[None])[0], -1, 1).astype(np.float32)
        following, reward, terminated, _, _ = env.step(action)
        rows.append((state, action, reward, following, terminated))
        state = following
    states, actions, rewards, following, terminals = (np.array(column) for column in zip(*rows, strict=True))
    return Transitions(states, actions, rewards, following, terminals, np.zeros(steps, bool), TASK)


def test_recorded_transitions_stay_what_they_are():
    recorded = _recorded()
    grounded = ground(recorded, TASK)
    assert len(grounded) == len(recorded)
    states, following = (canonicalise(array, COMPOSUITE) for array in (recorded.states, recorded.next_states))
    np.testing.assert_allclose(grounded.states, states, atol=2e-3)
    np.testing.assert_allclose(grounded.next_states[:, :FINGERS], following[:, :FINGERS], atol=2e-3)
    # An observation does not tell the gripper's command, which decides how the fingers go on while they open.
    np.testing.assert_allclose(grounded.next_states[:, FINGERS:], following[:, FINGERS:], atol=0.2)
    np.testing.assert_allclose(grounded.rewards, recorded.rewards, atol=1e-3)
    np.testing.assert_array_equal(grounded.actions, recorded.actions)


def test_what_contradicts_itself_in_a_state_follows_its_joints_and_object_and_s_prime_is_the_simulators():
    recorded = _recorded(8)
    wrong = recorded.states.copy()
    wrong[:, COMPOSUITE.factor_slices["goal"]] += 0.05
    wrong[:, 66:69] += 0.03  # the tool's position, which the joints decide
    nonsense = Transitions(
        wrong, recorded.actions, recorded.rewards + 9, -recorded.next_states, *[np.ones(8, bool)] * 2, TASK
    )
    grounded = ground(nonsense, TASK)
    np.testing.assert_allclose(grounded.states, canonicalise(recorded.states, COMPOSUITE), atol=2e-3)
    setter = CompoSuiteStateSetter(TASK)
    for row in range(8):
        setter.set(wrong[row].astype(float), recorded.actions[row].astype(float))
        following, reward, terminated = setter.step(recorded.actions[row].astype(float))
        expected = canonicalise(following.astype(np.float32)[None], COMPOSUITE)[0]
        np.testing.assert_array_equal(grounded.next_states[row], expected)
        assert grounded.rewards[row] == np.float32(reward) and grounded.terminals[row] == terminated


def test_grounding_twice_changes_nothing():
    once = ground(_recorded(10), TASK)
    twice = ground(once, TASK)
    np.testing.assert_allclose(twice.states, once.states, atol=1e-5)
    np.testing.assert_allclose(twice.next_states, once.next_states, atol=1e-4)


def test_rows_that_the_simulator_cannot_be_put_into_are_left_out():
    recorded = _recorded(6)
    recorded.states[2, 3:7] = 0.0  # no rotation of the object
    grounded = ground(recorded, TASK)
    assert len(grounded) == 5
    np.testing.assert_array_equal(grounded.actions, np.delete(recorded.actions, 2, axis=0))
