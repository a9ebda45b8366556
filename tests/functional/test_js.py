import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import js_loss


def draw(batch=8, classes=5, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * scale
    return u, torch.randint(classes, (batch,), generator=generator)


def by_divergences(u, y, pi1):
    """[narl 5] term by term, with both divergences over all classes."""
    p, label = u.softmax(1).numpy(), np.eye(u.shape[1])[y]
    m = pi1 * label + (1 - pi1) * p
    label_part = np.log(1 / m[np.arange(len(y)), y])
    prediction_part = (p * np.log(p / m)).sum(1)
    return (pi1 * label_part + (1 - pi1) * prediction_part) / (-(1 - pi1) * math.log(1 - pi1))


@pytest.mark.parametrize("pi1", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0])
def test_definition(pi1, scale):
    u, y = draw(32, scale=scale)
    np.testing.assert_allclose(js_loss(u, y, pi1).numpy(), by_divergences(u, y, pi1), rtol=1e-10, atol=1e-10)


def test_limits_are_reached_and_approached():
    u, y = draw(32, scale=6.0)
    cross_entropy = torch.nn.functional.cross_entropy(u, y, reduction="none")
    rest = 1 - u.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(js_loss(u, y, 0.0), cross_entropy)
    torch.testing.assert_close(js_loss(u, y, 1.0), rest)
    torch.testing.assert_close(js_loss(u, y, 1e-12), cross_entropy, rtol=1e-5, atol=0)
    errors = [(js_loss(u, y, 1 - 10.0**-k) - rest).abs().max().item() for k in (2, 6, 12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


@pytest.mark.parametrize("pi1", [0.0, 1e-7, 1e-3, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("p", [1 - 1e-6, 0.99, 0.5, 1e-3, 1e-9])
def test_single_precision_keeps_its_digits(pi1, p):
    u = torch.tensor([[math.log(p), math.log1p(-p)]], dtype=torch.float64)
    y = torch.tensor([0])
    single, double = js_loss(u.float(), y, pi1), js_loss(u.float().double(), y, pi1)
    assert single.item() == pytest.approx(double.item(), rel=5e-2 if p > 0.999 else 1e-5)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.floats(-200, 200), st.integers(0, 100))
def test_between_mae_and_cross_entropy(pi1, shift, seed):
    u, y = draw(4, seed=seed)
    u[:, 0] += shift
    loss = js_loss(u, y, pi1)
    assert (loss <= torch.nn.functional.cross_entropy(u, y, reduction="none") + 1e-9).all()
    assert (loss >= 1 - u.softmax(1).gather(1, y.unsqueeze(1)).squeeze(1) - 1e-9).all()


def test_pi1_by_sample():
    u, y = draw(8)
    pi1 = torch.tensor([0.0, 1e-6, 0.01, 0.2, 0.5, 0.9, 0.99, 1.0], dtype=torch.float64)
    alone = torch.cat([js_loss(u[i : i + 1], y[i : i + 1], float(pi1[i])) for i in range(8)])
    torch.testing.assert_close(js_loss(u, y, pi1), alone)


def test_gradients_in_logits_and_pi1():
    u, y = draw(8, scale=4.0)
    pi1 = torch.tensor([1e-3, 0.01, 0.1, 0.2, 0.4, 0.6, 0.9, 0.98], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda u, pi1: js_loss(u, y, pi1), (u.requires_grad_(), pi1))
    assert gradgradcheck(lambda u, pi1: js_loss(u, y, pi1), (u, pi1))


@pytest.mark.parametrize("pi1", [0.0, 1.0])
def test_gradients_in_logits_at_the_limits(pi1):
    u, y = draw(8)
    assert gradcheck(lambda u: js_loss(u, y, pi1), (u.requires_grad_(),))
    assert gradgradcheck(lambda u: js_loss(u, y, pi1), (u,))


def test_extreme_logits_have_finite_gradients():
    u = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [-90.0, 0.0]], requires_grad=True)
    pi1 = torch.tensor([0.01, 0.99, 0.5], requires_grad=True)
    first = torch.autograd.grad(js_loss(u, torch.zeros(3, dtype=torch.int64), pi1).sum(), (u, pi1), create_graph=True)
    assert all(g.isfinite().all() for g in first)
    (mixed,) = torch.autograd.grad(first[0][:, 0].sum(), pi1)
    assert mixed.isfinite().all()


def test_bad_input():
    u, y = draw()
    for pi1 in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="pi1="):
            js_loss(u, y, pi1)
