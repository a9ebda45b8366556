import numpy as np
import pytest
import torch
from scipy import stats

from lightning_perturb.functional import mix, symmetric_beta


def test_mix_by_hand_and_its_gradients():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_().unbind(0)
    w = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    expected = torch.stack([w[i] * a[i] + (1 - w[i]) * b[i] for i in range(3)])
    torch.testing.assert_close(mix(a, b, w), expected)
    torch.testing.assert_close(mix(a, b, torch.tensor(0.25)), 0.25 * a + 0.75 * b)
    assert torch.equal(mix(a, b, w)[0], b[0])
    assert torch.equal(mix(a, b, w)[2], a[2])
    inputs = [t.detach().clone().requires_grad_() for t in (a, b, w)]
    assert torch.autograd.gradcheck(mix, inputs)
    assert mix(a.bfloat16(), b.bfloat16(), w).dtype == torch.bfloat16


@pytest.mark.parametrize(("shape", "weight"), [((3, 5), (3,)), ((3, 4), (4,)), ((3, 4), (3, 1))])
def test_mix_bad_input(shape, weight):
    with pytest.raises(ValueError, match=r"must be \[B, \.\.\.\], the same"):
        mix(torch.zeros(3, 4), torch.zeros(shape), torch.zeros(weight))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.51, 1.0, 2.5, 30.0])
def test_draws_have_the_distribution(alpha):
    generator = np.random.default_rng(3)
    uniform = torch.from_numpy(generator.random((20000, 32 if alpha <= 0.5 else 1, 2)))
    drawn = symmetric_beta(uniform, alpha).numpy()
    assert drawn.shape == (20000,)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # a draw within 1e-16 of 1 is 1: compare the shares below what floats can tell apart
    for point in (1e-6, 0.01, 0.2, 0.5, 0.7, 0.95, 1 - 1e-6):
        share = stats.beta(alpha, alpha).cdf(point)
        assert abs((drawn <= point).mean() - share) < 4 * (share * (1 - share) / 20000) ** 0.5 + 1e-9
    if alpha > 0.1:
        assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_draws_at_the_edges():
    assert symmetric_beta(torch.zeros(1, 1, 2), 2.0).isfinite().all()
    for alpha in (1e-6, 0.3, 0.5, 1.0, 1e6):
        numbers = torch.rand(500, 4, 2)
        numbers[0] = 0.0
        numbers[1] = 1 - 2.0**-24
        found = symmetric_beta(numbers, alpha)
        assert bool(((found >= 0) & (found <= 1)).all())
    assert symmetric_beta(torch.zeros(0, 3, 2), 0.3).shape == (0,)
    never = torch.tensor([[[0.0, 0.0]]])
    assert symmetric_beta(never, 0.3).tolist() == [0.5], "no pair was taken"


def test_beta_bad_input():
    with pytest.raises(ValueError, match="alpha=0"):
        symmetric_beta(torch.rand(3, 1, 2), 0)
    with pytest.raises(ValueError, match=r"Give \[B, n, 2\]"):
        symmetric_beta(torch.rand(3, 2), 1.0)
