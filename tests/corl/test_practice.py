"""Practice: the clone's own states join the set with what the generator expects there; the best round's set is kept."""

import numpy as np
import pytest
import torch

from corl.practice import ORIGINS, Practice, PracticeConfig, Round, best_round, spaced
from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.state_transform import StateTransform
from offline_compositional_rl_datasets.transitions import Transitions
from runtime import interrupt
from runtime.errors import ConfigError

CPU = torch.device("cpu")
WHERE, AIM = 45, 0.6
SMALL = PracticeConfig(
    rounds=3,
    episodes=6,
    members=2,
    hidden_dims=(16, 16),
    first_steps=300,
    steps=300,
    batch_size=64,
    linger=3,
    noise=0.05,
    learning_rate=3e-3,
)


class Line:
    """A body on a line that the first action moves; it is solved at `AIM`. It starts where the first set never was."""

    num_envs = 4

    def __init__(self, start=-0.9):
        self.start, self.steps_taken = start, 0

    def reset(self, seeds):
        self.x = self.start + 0.05 * np.array([np.random.default_rng(seed).normal() for seed in seeds])
        self.time = 0
        return self._states()

    def _states(self):
        states = np.zeros((len(self.x), 77), np.float32)
        states[:, WHERE] = self.x
        return states

    def step(self, actions):
        self.x = self.x + 0.1 * actions[:, 0]
        self.time += 1
        self.steps_taken += len(self.x)
        over = np.full(len(self.x), self.time >= 40)
        return self._states(), np.zeros(len(self.x)), np.zeros_like(over), over, np.abs(self.x - AIM) < 0.15


def _transitions(x, actions):
    states = np.zeros((len(x), 77), np.float32)
    states[:, WHERE] = x
    none = np.zeros(len(x), bool)
    return Transitions(states, actions, np.zeros(len(x), np.float32), states, none, none)


def _towards(x):
    actions = np.zeros((len(x), 8), np.float32)
    actions[:, 0] = np.clip(3 * (AIM - x), -1, 1)
    return actions


def _expected(states):
    """What a perfect generator expects: the step towards the aim."""
    return _transitions(states[:, WHERE], _towards(states[:, WHERE])).to_matrix(COMPOSUITE, timeouts_as_terminals=False)


def _first_set():
    """Good about the aim, and nonsense far from it: its clone goes the wrong way at the start."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.uniform(0.3, 0.8, 80), random.uniform(-0.6, -0.4, 10)]).astype(np.float32)
    actions = _towards(x)
    actions[80:, 0] = -1.0
    return _transitions(x, actions)


def _practice(folder, config=SMALL, key="a"):
    start = _first_set()
    return Practice(start, _expected, _fitted(start), config, folder, seed=1, device=CPU, key=key)


def _fitted(start):
    return StateTransform.fit(start.states, COMPOSUITE, hide_velocities=True, canonical_quaternions=True)


def _to_the_end(practice, environment=None):
    environment = environment or Line()
    practice.restore()
    with practice:
        while not practice.finished:
            practice.take_round(environment)
            practice.between_steps()
    return practice.result()


def test_practice_solves_what_the_generated_set_alone_does_not(tmp_path):
    environment = Line()
    result = _to_the_end(_practice(tmp_path), environment)
    assert result.rounds[0].solved == 0
    assert max(r.solved for r in result.rounds) == SMALL.episodes
    chosen = result.rounds[best_round(result.rounds)]
    assert len(result.matrix) == len(result.origins) == chosen.rows
    assert result.control_steps <= environment.steps_taken


def test_rows_tell_where_they_come_from(tmp_path):
    practice = _practice(tmp_path)
    result = _to_the_end(practice)
    given = _first_set().to_matrix(COMPOSUITE, timeouts_as_terminals=False)
    np.testing.assert_array_equal(result.matrix[result.origins == ORIGINS.index("generated")], given)
    labelled = result.matrix[result.origins == ORIGINS.index("labelled")]
    assert len(labelled)
    np.testing.assert_array_equal(labelled, _expected(labelled[:, COMPOSUITE.state]))
    practised = practice.matrix[practice.origins == ORIGINS.index("practised")]
    moved = practised[:, COMPOSUITE.next_state] - practised[:, COMPOSUITE.state]
    np.testing.assert_allclose(moved[:, WHERE], 0.1 * practised[:, COMPOSUITE.action.start], atol=1e-6)
    assert len(practised), "solved episodes join as real transitions"


def test_a_practice_that_was_stopped_between_rounds_ends_with_the_same_set(tmp_path):
    config = PracticeConfig(**{**SMALL.__dict__, "enough": 1.0, "rounds": 3, "steps": 20, "first_steps": 40})
    whole = _to_the_end(_practice(tmp_path / "whole", config=config))
    stopped = _practice(tmp_path / "stopped", config=config)
    stopped.restore()
    with pytest.raises(interrupt.Interrupted), stopped:
        stopped.take_round(Line())
        stopped.between_steps(stop=True)
    resumed = _practice(tmp_path / "stopped", config=config)
    assert resumed.restore() and resumed.step == 1
    result = _to_the_end(resumed)
    assert result.rounds == whole.rounds
    np.testing.assert_array_equal(result.matrix, whole.matrix)
    np.testing.assert_array_equal(result.origins, whole.origins)


def test_a_practice_of_other_inputs_begins_anew(tmp_path):
    first = _practice(tmp_path)
    first.restore()
    with first:
        first.take_round(Line())
        first.save()
    other = _practice(tmp_path, key="b")
    assert not other.restore() and other.step == 0


def test_the_budget_of_control_steps_is_kept(tmp_path):
    config = PracticeConfig(**{**SMALL.__dict__, "control_steps": 500, "rounds": 50, "first_steps": 5, "steps": 1})
    result = _to_the_end(_practice(tmp_path, config=config), Line(start=-30.0))
    assert 0 < result.control_steps <= 500
    assert len(result.rounds) == 2


def test_practice_ends_when_enough_is_solved(tmp_path):
    environment = Line(start=0.55)
    result = _to_the_end(_practice(tmp_path), environment)
    assert len(result.rounds) == 1 and result.rounds[0].solved == SMALL.episodes
    assert (result.origins == 0).all(), "the set that was tried, not what would have been added"


def test_no_practice_is_one_round_that_adds_nothing(tmp_path):
    config = PracticeConfig(**{**SMALL.__dict__, "rounds": 0})
    result = _to_the_end(_practice(tmp_path, config=config))
    assert len(result.rounds) == 1 and (result.origins == 0).all()


def test_states_that_are_alike_are_kept_once():
    states = np.array([[0.0, 1.0], [0.01, 1.01], [0.5, 1.0], [0.0, 1.0], [-0.5, 1.0]])
    np.testing.assert_array_equal(spaced(states, 0.1), [0, 2, 4])


def test_the_best_round_is_the_last_of_those_that_solved_most():
    rounds = tuple(Round(rows, solved, 10, 100) for rows, solved in ((10, 3), (20, 8), (30, 8), (40, 2)))
    assert best_round(rounds) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", -1),
        ("own_from", -1),
        ("episodes", 0),
        ("noise", -0.1),
        ("enough", 0.0),
        ("enough", 1.1),
        ("spacing", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        PracticeConfig(**{name: value})


class Moody(Line):
    """The same line; an episode has a mood between -1 and 1, which states show and which changes nothing."""

    def reset(self, seeds):
        self.mood = np.array([np.random.default_rng(seed).uniform(-1, 1) for seed in seeds])
        return super().reset(seeds)

    def _states(self):
        states = super()._states()
        states[:, WHERE + 1] = self.mood
        return states


def _by_mood(states):
    """What a poor generator expects: the step towards the aim in a good mood, the step away from it else."""
    actions = _towards(states[:, WHERE]) * np.where(states[:, WHERE + 1] > -0.3, 1, -1)[:, None].astype(np.float32)
    transitions = _transitions(states[:, WHERE], actions)
    transitions.states[:, WHERE + 1] = transitions.next_states[:, WHERE + 1] = states[:, WHERE + 1]
    return transitions.to_matrix(COMPOSUITE, timeouts_as_terminals=False)


def _practice_by_mood(folder, own_from):
    config = PracticeConfig(**{**SMALL.__dict__, "rounds": 5, "episodes": 24, "own_from": own_from})
    random = np.random.default_rng(0)
    states = np.zeros((300, 77), np.float32)
    states[:, WHERE], states[:, WHERE + 1] = random.uniform(-1, 0.8, 300), random.uniform(-1, 1, 300)
    start = Transitions.from_matrix(_by_mood(states), None, COMPOSUITE)
    return Practice(start, _by_mood, _fitted(start), config, folder, seed=1, device=CPU, key=f"own {own_from}")


def test_a_policy_that_clones_its_solved_episodes_alone_surpasses_its_generator(tmp_path):
    copied = _to_the_end(_practice_by_mood(tmp_path / "copied", 0), Moody())
    practice = _practice_by_mood(tmp_path / "own", 8)
    own = _to_the_end(practice, Moody())
    assert own.rounds[0] == copied.rounds[0] and 8 <= own.rounds[0].solved < 22
    later_copied, later_own = (sum(r.solved for r in practised.rounds[1:]) for practised in (copied, own))
    assert len(own.rounds) == len(copied.rounds) and later_own > later_copied + 6, "the generator fails in a bad mood"
    assert (own.origins == ORIGINS.index("practised")).all()
    labelled = np.flatnonzero(practice.origins == ORIGINS.index("labelled"))
    assert (labelled < own.rounds[1].rows).all(), "nothing is labelled that is not cloned"


def test_a_practice_of_solved_episodes_that_was_stopped_ends_with_the_same_set(tmp_path):
    whole = _to_the_end(_practice_by_mood(tmp_path / "whole", 30), Moody())
    stopped = _practice_by_mood(tmp_path / "stopped", 30)
    stopped.restore()
    with stopped:
        for _ in range(3):
            stopped.take_round(Moody())
        stopped.save()
    result = _to_the_end(_practice_by_mood(tmp_path / "stopped", 30), Moody())
    assert result.rounds == whole.rounds and len(whole.rounds) > 3
    np.testing.assert_array_equal(result.matrix, whole.matrix)
