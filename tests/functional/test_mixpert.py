import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_perturb.functional import hard_by_share, hard_by_value, positive_perturbation, sample_bounds


def ce(u, y):
    return u.logsumexp(1) - u[torch.arange(len(y)), y]


def draw(batch, classes, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * scale
    return u, torch.randint(classes, (batch,), generator=generator)


def test_positive_perturbation_by_hand():
    v = positive_perturbation(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([1]), 2.0)
    assert v[0].tolist() == pytest.approx([-1.5, 1.5])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 10.0), st.integers(2, 20))
def test_positive_perturbation_lowers_the_loss_within_its_bound(seed, eta, classes):
    u, y = draw(16, classes, seed)
    v = positive_perturbation(u, y, eta)
    assert v.abs().max() <= eta
    assert (ce(u + v, y) < ce(u, y)).all()
    torch.testing.assert_close(v.sum(1), torch.zeros(16, dtype=u.dtype), atol=1e-12, rtol=0)


def test_positive_perturbation_of_soft_labels_and_per_sample_eta():
    u, y = draw(5, 4)
    eta = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=u.dtype, requires_grad=True)
    v = positive_perturbation(u, torch.eye(4, dtype=u.dtype)[y], eta)
    for i, value in enumerate(eta.tolist()):
        torch.testing.assert_close(v[i], positive_perturbation(u, y, value)[i])
    assert not v[0].any()
    (gradient,) = torch.autograd.grad(v.pow(2).sum(), eta)
    torch.testing.assert_close(gradient, 2 * eta * positive_perturbation(u, y, 1.0).pow(2).sum(1))


def test_positive_perturbation_is_constant_in_the_logits():
    u, y = draw(5, 4)
    assert not positive_perturbation(u.requires_grad_(), y, 1.0).requires_grad


def test_negative_eta():
    with pytest.raises(ValueError, match="eta=-1"):
        positive_perturbation(*draw(2, 3), -1.0)


def test_sample_bounds_by_hand():
    loss = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0])
    first, second = sample_bounds(loss, 1.0, 3.0, 8.0)
    assert first.tolist() == [0.0, 1.5, 3.0, 6.0, 15.0]
    assert second.tolist() == [16.0, 12.0, 8.0, 0.0, 0.0]
    again = sample_bounds(loss, torch.tensor(1.0), torch.tensor(3.0), torch.tensor(8.0))
    assert torch.equal(again[0], first)
    assert torch.equal(again[1], second)


@pytest.mark.parametrize("tau", [0.0, 1e-30, torch.tensor(0.0)])
def test_sample_bounds_stay_finite(tau):
    first, second = sample_bounds(torch.tensor([0.0, 1.0, 2e4]), tau, 2.0, 0.1)
    assert first.isfinite().all()
    assert second.tolist() == pytest.approx([0.2, 0.0, 0.0])


@pytest.mark.parametrize("name", ["tau", "eps1", "eps2"])
def test_sample_bounds_bad_input(name):
    arguments = {"tau": 1.0, "eps1": 1.0, "eps2": 1.0, name: -0.5}
    with pytest.raises(ValueError, match=f"{name}=-0.5"):
        sample_bounds(torch.ones(2), **arguments)


def test_share_of_the_published_code():
    assert hard_by_share(torch.rand(128), 0.15).sum() == 19


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), max_size=20), st.floats(0, 1))
def test_hard_by_share_takes_the_largest_and_the_first_of_equals(losses, share):
    k = round(share * len(losses))
    order = sorted(range(len(losses)), key=lambda i: (-losses[i], i))[:k]
    hard = hard_by_share(torch.tensor(losses, dtype=torch.float32), share)
    assert hard.dtype == torch.bool
    assert hard.tolist() == [i in order for i in range(len(losses))]


def test_hard_by_share_limits():
    loss = torch.rand(7, requires_grad=True)
    assert not hard_by_share(loss, 0.0).any()
    assert hard_by_share(loss, 1.0).all()
    assert hard_by_share(torch.zeros(5), 0.5).tolist() == [True, True, False, False, False]
    with pytest.raises(ValueError, match="share=15"):
        hard_by_share(loss, 15)


def test_hard_by_value():
    loss = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    assert hard_by_value(loss, 1.0).tolist() == [False, True, True]
    assert hard_by_value(loss, torch.tensor([0.5, 1.5, 1.5])).tolist() == [True, False, True]
