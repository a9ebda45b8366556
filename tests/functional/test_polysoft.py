import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import polysoft_loss, polysoft_weight


def at_loss(values, dtype=torch.float64):
    """Two-class logits whose cross-entropy with class 0 is as asked."""
    rival = [math.log(math.expm1(v)) if v < 30 else v for v in values]
    return torch.tensor([[0.0, r] for r in rival], dtype=dtype), torch.zeros(len(values), dtype=torch.int64)


def by_definition(loss, lam, d):
    if loss >= lam:
        return (d - 1) * lam / d
    return (d - 1) * lam / d * (1 - (1 - loss / lam) ** (d / (d - 1)))


@pytest.mark.parametrize("lam", [0.001, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("d", [1.01, 1.5, 2.0, 5.0, 20.0])
def test_definition(lam, d):
    losses = [1e-3, 0.1, 0.49, 0.51, 2.9, 3.1, 19.0, 25.0]
    u, y = at_loss(losses)
    expected = [by_definition(v, lam, d) for v in losses]
    np.testing.assert_allclose(polysoft_loss(u, y, lam, d).numpy(), expected, rtol=1e-9)


def test_derivative_is_the_implicit_weight():
    losses = [0.1, 1.0, 2.9, 3.1]
    u, y = at_loss(losses)
    u.requires_grad_()
    for d in (1.2, 2.0, 4.0):
        (gradient,) = torch.autograd.grad(polysoft_loss(u, y, 3.0, d).sum(), u)
        weight = [max(0.0, 1 - v / 3.0) ** (1 / (d - 1)) for v in losses]
        p = u.detach().softmax(1)[:, 0].numpy()
        np.testing.assert_allclose(gradient[:, 0].numpy(), weight * (p - 1), rtol=1e-9, atol=1e-12)


def test_large_lam_is_scaled_cross_entropy():
    u, y = at_loss([0.1, 1.0, 5.0])
    np.testing.assert_allclose(polysoft_loss(u, y, 1e9, 3.0).numpy(), [0.1, 1.0, 5.0], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-3, 20), st.floats(1.01, 20), st.lists(st.floats(1e-4, 40), min_size=4, max_size=4))
def test_finite_gradients_everywhere(lam, d, losses):
    u, y = at_loss([*losses, lam, lam * (1 - 1e-7), lam * (1 + 1e-7)], torch.float32)
    u.requires_grad_()
    scale, degree = torch.full((7,), lam, requires_grad=True), torch.full((7,), d, requires_grad=True)
    loss = polysoft_loss(u, y, scale, degree)
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert (loss <= (d - 1) * lam / d * (1 + 1e-5)).all()
    first = torch.autograd.grad(loss.sum(), (u, scale, degree), create_graph=True)
    for gradient in first:
        assert gradient.isfinite().all()
    for gradient in torch.autograd.grad(first[0][:, 0].sum(), (scale, degree)):
        assert gradient.isfinite().all()


def test_gradients():
    u, y = at_loss([0.1, 0.5, 1.0, 1.9, 4.0])
    lam = torch.tensor([2.0, 0.4, 3.0, 2.5, 3.0], dtype=torch.float64).requires_grad_()
    d = torch.tensor([1.1, 2.0, 3.0, 4.0, 2.0], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda u, lam, d: polysoft_loss(u, y, lam, d), (u.requires_grad_(), lam, d))
    assert gradgradcheck(lambda u, lam, d: polysoft_loss(u, y, lam, d), (u, lam, d))


@pytest.mark.parametrize(("lam", "d"), [(0.0, 2.0), (-1.0, 2.0), (math.inf, 2.0), (1.0, 1.0), (1.0, math.nan)])
def test_bad_input(lam, d):
    u, y = at_loss([1.0])
    with pytest.raises(ValueError, match=r"lam=|d="):
        polysoft_loss(u, y, lam, d)


def test_weight_is_the_derivative_in_the_cross_entropy():
    # the derivative in a logit is that of the cross-entropy times the weight
    logits = (
        torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).mul_(3).requires_grad_()
    )
    target = torch.arange(40) % 5
    lam = torch.linspace(0.3, 6.0, 40, dtype=torch.float64)
    d = torch.linspace(1.5, 8.0, 40, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    (of_loss,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    (of_robust,) = torch.autograd.grad(polysoft_loss(logits, target, lam, d).sum(), logits)
    rows = torch.arange(40)
    weight = polysoft_weight(loss.detach(), lam, d)
    torch.testing.assert_close(weight, of_robust[rows, target] / of_loss[rows, target], rtol=1e-8, atol=1e-10)
    assert (weight == 0).any()
    assert (weight > 0).any()
