import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import gce_loss, mae_loss, truncated_gce_keep, truncated_gce_loss


def draw(batch=8, classes=5, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * scale
    return u, torch.randint(classes, (batch,), generator=generator)


def probability(u, y):
    e = np.exp(u.numpy() - u.numpy().max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True))[np.arange(len(y)), y.numpy()]


@pytest.mark.parametrize("q", [0.01, 0.3, 0.5, 0.7, 1.0])
def test_definition(q):
    u, y = draw(scale=5.0)
    np.testing.assert_allclose(gce_loss(u, y, q).numpy(), (1 - probability(u, y) ** q) / q, rtol=1e-9, atol=1e-12)


def test_limits():
    u, y = draw(scale=5.0)
    cross_entropy = torch.nn.functional.cross_entropy(u, y, reduction="none")
    torch.testing.assert_close(gce_loss(u, y, 0.0), cross_entropy)
    torch.testing.assert_close(gce_loss(u, y, 1e-9), cross_entropy, rtol=1e-7, atol=0)
    np.testing.assert_allclose(gce_loss(u, y, 1.0).numpy(), 1 - probability(u, y))
    torch.testing.assert_close(gce_loss(u, y, 1.0), mae_loss(u, y))


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_falls_with_q_and_is_bounded(q1, q2, seed):
    u, y = draw(seed=seed, scale=6.0)
    low, high = sorted((q1, q2))
    assert (gce_loss(u, y, high) <= gce_loss(u, y, low) + 1e-12).all()
    assert (gce_loss(u, y, high) >= 0).all()
    if high > 1e-3:
        assert (gce_loss(u, y, high) <= 1 / high + 1e-12).all()


def test_q_by_sample():
    u, y = draw()
    q = torch.tensor([0.0, 1e-8, 0.01, 0.2, 0.4, 0.6, 0.9, 1.0], dtype=torch.float64)
    alone = torch.cat([gce_loss(u[i : i + 1], y[i : i + 1], float(q[i])) for i in range(8)])
    torch.testing.assert_close(gce_loss(u, y, q), alone)
    torch.testing.assert_close(gce_loss(u, y, q[3]), gce_loss(u, y, 0.2))


def test_gradients_in_logits_and_q():
    u, y = draw(scale=4.0)
    q = torch.tensor([1e-4, 0.01, 0.1, 0.2, 0.4, 0.6, 0.9, 0.98], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda u, q: gce_loss(u, y, q), (u.requires_grad_(), q))
    assert gradgradcheck(lambda u, q: gce_loss(u, y, q), (u, q))


def test_gradient_in_q_where_nothing_may_cancel():
    # d/dq (1 - e^(-q c)) / q = -c^2 / 2 at q = 0, whatever the side on which the series takes over
    for c in (1e-6, 1e-3, 0.3, 2.0):
        u = torch.tensor([[0.0, math.log(math.expm1(c))]])
        q = torch.tensor(1e-7, requires_grad=True)
        gce_loss(u, torch.tensor([0]), q).sum().backward()
        assert q.grad.item() == pytest.approx(-c * c / 2, rel=1e-2)


def test_implicit_weight_is_p_to_the_q():
    u, y = draw()
    p = torch.from_numpy(probability(u, y))
    (gradient,) = torch.autograd.grad(gce_loss(u.requires_grad_(), y, 0.7).sum(), u)
    torch.testing.assert_close(gradient, p.pow(0.7).unsqueeze(1) * (u.detach().softmax(1) - torch.eye(5)[y]))


def test_truncated_is_flat_below_k():
    u = torch.tensor([[3.0, 0.0], [0.1, 0.0], [-0.1, 0.0], [-3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    y = torch.zeros(4, dtype=torch.int64)
    loss = truncated_gce_loss(u, y, 0.7, 0.5)
    p = 1 / (1 + np.exp(-u.detach().numpy()[:, 0]))
    np.testing.assert_allclose(loss.detach().numpy(), (1 - np.maximum(p, 0.5) ** 0.7) / 0.7)
    loss.sum().backward()
    assert (u.grad.abs().sum(1) > 0).tolist() == [True, True, False, False]
    assert truncated_gce_keep(u, y, 0.5).tolist() == [True, True, False, False]
    torch.testing.assert_close(truncated_gce_loss(u, y, 0.7, 1e-30), gce_loss(u, y, 0.7))


def test_truncated_gradcheck():
    u, y = draw()
    k = torch.linspace(0.1, 0.9, 8, dtype=torch.float64).requires_grad_()
    q = torch.linspace(0.1, 0.9, 8, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda u, q, k: truncated_gce_loss(u, y, q, k), (u.requires_grad_(), q, k))


def test_bad_input():
    u, y = draw()
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="q="):
            gce_loss(u, y, q)
    with pytest.raises(ValueError, match="k=0"):
        truncated_gce_loss(u, y, 0.7, 0.0)
    with pytest.raises(ValueError, match=r"q has the shape \(3,\)"):
        gce_loss(u, y, torch.ones(3))
    with pytest.raises(ValueError, match="target"):
        gce_loss(u, u)
