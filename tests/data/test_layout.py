import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offline_compositional_rl_datasets.composuite import COMPOSUITE
from offline_compositional_rl_datasets.layout import Factor, FactoredLayout
from offline_compositional_rl_datasets.transitions import Transitions
from tests.benchmark_axes import benchmark_axes

FINITE = st.floats(-1e3, 1e3, width=32)


@benchmark_axes
def test_the_dimensions_are_those_of_the_benchmark():
    layout = COMPOSUITE
    dims = (layout.state_dim, layout.observation_dim, layout.condition_dim, layout.transition_dim)
    assert dims == (77, 93, 16, 164)
    assert layout.ids_slice == slice(45, 61)
    assert [token.dim for token in layout.tokens] == [14, 14, 17, 32, 8, 1, 14, 14, 17, 32, 1]


@st.composite
def layouts(draw):
    """Factored layouts of any task family: the code must not be tied to CompoSuite's numbers."""
    axes = tuple((f"axis{i}", tuple("abcd"[: draw(st.integers(1, 4))])) for i in range(draw(st.integers(1, 3))))
    factors = tuple(
        Factor(f"factor{i}", draw(st.integers(1, 9)), draw(st.sampled_from([name for name, _ in axes])))
        for i in range(draw(st.integers(1, 4)))
    )
    return FactoredLayout(factors, draw(st.integers(1, 8)), axes, draw(st.sampled_from([f.name for f in factors])))


@given(layouts())
def test_tokens_cover_every_dimension_exactly_once(layout):
    covered = np.concatenate([np.arange(layout.transition_dim)[token.part] for token in layout.tokens])
    assert covered.tolist() == list(range(layout.transition_dim))


@given(layouts(), st.data())
def test_splitting_off_the_ids_is_undone_by_joining_them(layout, data):
    observations = data.draw(hnp.arrays(np.float32, (3, layout.observation_dim), elements=FINITE))
    states, ids = layout.split_ids(observations)
    np.testing.assert_array_equal(layout.join_ids(states, ids), observations)


@given(layouts(), st.integers(1, 5), st.integers(0, 2**31))
def test_transitions_survive_the_way_through_the_matrix(layout, rows, seed):
    rng = np.random.default_rng(seed)
    transitions = Transitions(
        states=rng.normal(size=(rows, layout.state_dim)).astype(np.float32),
        actions=rng.normal(size=(rows, layout.action_dim)).astype(np.float32),
        rewards=rng.normal(size=rows).astype(np.float32),
        next_states=rng.normal(size=(rows, layout.state_dim)).astype(np.float32),
        terminals=rng.random(rows) < 0.5,
        timeouts=np.zeros(rows, dtype=bool),
    )
    back = Transitions.from_matrix(transitions.to_matrix(layout, timeouts_as_terminals=True), None, layout)
    for name in Transitions.arrays():
        np.testing.assert_array_equal(getattr(back, name), getattr(transitions, name))
