import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import cross_entropy, poly_loss


def draw():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    return u, torch.randint(4, (6,), generator=generator)


def test_by_hand():
    u, y = draw()
    p = u.softmax(1).numpy()[np.arange(6), y]
    np.testing.assert_allclose(poly_loss(u, y).numpy(), -np.log(p) + 2 * (1 - p))
    expected = -np.log(p) + 0.5 * (1 - p) - 0.25 * (1 - p) ** 2
    np.testing.assert_allclose(poly_loss(u, y, (0.5, -0.25)).numpy(), expected)
    torch.testing.assert_close(poly_loss(u, y, ()), cross_entropy(u, y))


def test_removes_terms_of_the_series():
    # with epsilon_j = -1 / j for j < n what is left starts at the n-th power
    y = torch.tensor([0])
    u = torch.tensor([[np.log(0.9), np.log(0.1)]])
    left = poly_loss(u, y, [-1 / j for j in range(1, 4)]).item()
    assert left == pytest.approx(sum(0.1**j / j for j in range(4, 40)), rel=1e-6)


def test_gradcheck_also_in_epsilon():
    u, y = draw()
    epsilon = torch.rand(6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, e: poly_loss(u, y, (e, 0.3)), (u.requires_grad_(), epsilon))


def test_bad_input():
    u, y = draw()
    with pytest.raises(ValueError, match=r"epsilons\[1\]=nan"):
        poly_loss(u, y, (1.0, float("nan")))
