import pytest
import torch

from dsrl.denoising import FastSampler, NoisePredictor, cosine_alpha_bar, ddim, loss
from dsrl.schedule import ddim_times
from runtime.errors import ConfigError


def test_the_schedule_is_the_squared_cosine():
    alpha_bar = cosine_alpha_bar(100)
    for t, value in ((0, 0.9994), (84, 0.0537), (90, 0.0195)):
        assert abs(float(alpha_bar[t]) - value) < 1e-4
    assert float(alpha_bar[99]) == pytest.approx(2.4e-7, rel=0.05)


def test_sampling_times():
    assert ddim_times(100, 10, "leading") == list(range(90, -1, -10))
    assert ddim_times(100, 10, "trailing") == list(range(99, 0, -10))
    with pytest.raises(ConfigError, match="ddim_steps 101"):
        ddim_times(100, 101, "leading")


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_with_the_true_noise_sampling_finds_the_data(spacing):
    """For data at one point x0 the optimal predictor is known, and every chain ends there."""
    alpha_bar = cosine_alpha_bar(100)
    x0 = torch.tensor([[0.3, -0.7]], dtype=torch.float64)

    def predict(x, t, observation):
        a = alpha_bar[t][:, None]
        return (x - a.sqrt() * x0) / (1 - a).sqrt()

    for eta in (0.0, 1.0):
        w = torch.randn(4, 2, dtype=torch.float64)
        result = ddim(predict, w, torch.zeros(4, 1), alpha_bar, ddim_times(100, 10, spacing), eta)
        torch.testing.assert_close(result, x0.expand(4, 2), atol=1e-9, rtol=0)


@pytest.mark.parametrize("widths", [(32, 32, 32), (32, 16)])
def test_the_fast_sampler_is_the_plain_one(widths):
    torch.manual_seed(0)
    network = NoisePredictor(28, 19, widths).requires_grad_(False)
    alpha_bar, times = cosine_alpha_bar(100), ddim_times(100, 10, "leading")
    w, seen = torch.randn(6, 28), torch.randn(6, 19)
    fast = FastSampler(network, alpha_bar, times)
    torch.testing.assert_close(fast(w, seen), ddim(network, w, seen, alpha_bar, times), atol=1e-4, rtol=1e-4)
    assert torch.equal(fast(w, seen), fast(w, seen)), "the same noise, the same chunk"
    assert fast(w, seen).abs().max() <= 1


def test_a_predictor_of_zero_has_the_loss_of_the_noise():
    alpha_bar = cosine_alpha_bar(100).float()
    zero = loss(lambda x, t, o: torch.zeros_like(x), torch.rand(4000, 5), torch.zeros(4000, 1), alpha_bar)
    assert abs(float(zero) - 1) < 0.05
