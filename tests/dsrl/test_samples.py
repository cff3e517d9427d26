import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsrl.chunks import chunk_rows
from dsrl.normalizer import MinMax, feature_columns, features
from envs.robomimic.task import POLICY_KEYS, RobomimicTask


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 6))
def test_a_chunk_never_leaves_its_episode(lengths, horizon):
    lengths = np.array(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    rows, chunks = chunk_rows(lengths, horizon)
    assert len(rows) == lengths.sum()
    assert (episode[chunks] == episode[rows][:, None]).all()
    np.testing.assert_array_equal(chunks[:, 0], rows)
    step = np.diff(chunks, axis=1)
    assert ((step == 1) | (step == 0)).all()
    last = np.cumsum(lengths) - 1
    assert (np.isin(chunks[:, :-1][step == 0], last)).all(), "only an episode's last action is repeated"
    if lengths.max() >= horizon:
        rows, chunks = chunk_rows(lengths, horizon, pad=False)
        assert len(rows) == np.maximum(lengths - horizon + 1, 0).sum()
        assert (np.diff(chunks, axis=1) == 1).all()
        assert (episode[chunks] == episode[rows][:, None]).all()


def test_min_max_maps_the_data_to_the_unit_box_and_leaves_constants_unscaled():
    data = torch.tensor([[0.0, 5.0, 2.0], [4.0, 5.0, 2.0 + 2e-5]])
    scale = MinMax.fit(data)
    normal = scale.normalize(data)
    torch.testing.assert_close(normal[:, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(normal[:, 1], torch.zeros(2))
    assert normal[:, 2].abs().max() < 1e-4, "an almost constant dimension is not magnified"
    torch.testing.assert_close(scale.normalize(torch.tensor([[2.0, 5.5, 2.0]]))[0, 1], torch.tensor(0.5))
    torch.testing.assert_close(scale.denormalize(normal), data)


def test_six_numbers_do_not_depend_on_the_sign_of_the_quaternion():
    task = RobomimicTask.standard("can")
    columns = feature_columns(task, POLICY_KEYS, "six")
    assert columns == slice(19, 23)
    observation = torch.randn(5, 23)
    observation[:, columns] /= observation[:, columns].norm(dim=1, keepdim=True)
    flipped = observation.clone()
    flipped[:, columns] *= -1
    six = features(observation, columns, "six")
    assert six.shape == (5, 25)
    torch.testing.assert_close(six, features(flipped, columns, "six"))
    x, y = six[:, 19:22], six[:, 22:25]
    torch.testing.assert_close((x * y).sum(dim=1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(5))
    assert features(observation, columns, "drop").shape == (5, 19)
    assert feature_columns(RobomimicTask.standard("lift"), POLICY_KEYS, "six") is None
    assert feature_columns(RobomimicTask.standard("can", "1.5"), POLICY_KEYS, "six") == slice(12, 16)
