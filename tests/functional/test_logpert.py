import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_perturb.functional import logpert, logpert_loss, logpert_step


def draw(batch, classes, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * scale
    return u, torch.randint(classes, (batch,), generator=generator)


def objective(u, v, y, lam):
    z = u + v
    return z.logsumexp(1) - z[torch.arange(len(y)), y] + lam * v.abs().sum(1)


def minimise(u, y, lam, iterations=4000):
    """Accelerated proximal gradient on [tax 54] from 0; the softmax has curvature of at most 1/2."""
    v = w = torch.zeros_like(u)
    e, t = torch.eye(u.shape[1], dtype=u.dtype)[y], 1.0
    for _ in range(iterations):
        moved = w - 2.0 * ((u + w).softmax(1) - e)
        new = moved.sign() * (moved.abs() - 2.0 * lam).clamp(min=0)
        # restart where momentum goes uphill, so that the end is linear
        uphill = ((w - new) * (new - v)).sum() > 0
        t_new = 1.0 if uphill else (1 + math.sqrt(1 + 4 * t * t)) / 2
        w = new if uphill else new + (t - 1) / t_new * (new - v)
        v, t = new, t_new
    return v


@pytest.mark.parametrize("classes", [3, 5, 10])
@pytest.mark.parametrize("lam", [0.05, 0.175, 0.35, 0.8])
def test_exact_equals_a_numerical_minimiser(classes, lam):
    u, y = draw(16, classes, seed=classes)
    numerical = minimise(u, y, lam)
    v = logpert(u, y, lam)
    assert (v > 0).any()
    torch.testing.assert_close(v, numerical, atol=1e-6, rtol=0)
    torch.testing.assert_close(objective(u, v, y, lam), objective(u, numerical, y, lam), atol=1e-6, rtol=0)
    torch.testing.assert_close(logpert_loss(u, y, lam), objective(u, numerical, y, lam), atol=1e-6, rtol=0)


def test_two_classes_reach_the_same_objective():
    u, y = draw(16, 2)
    numerical = minimise(u, y, 0.3)
    torch.testing.assert_close(logpert_loss(u, y, 0.3), objective(u, numerical, y, 0.3), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.01, 0.99), st.integers(2, 12), st.floats(0.1, 20.0))
def test_only_the_given_class_moves_to_one_minus_lam(seed, lam, classes, scale):
    u, y = draw(8, classes, seed, scale)
    v = logpert(u, y, lam)
    rows = torch.arange(8)
    before, after = u.softmax(1)[rows, y], (u + v).softmax(1)[rows, y]
    hard = before < 1 - lam
    torch.testing.assert_close(after, before.clamp(min=1 - lam))
    assert torch.equal(v[rows, y] > 0, hard) or (before - (1 - lam)).abs().min() < 1e-12
    v[rows, y] = 0
    assert not v.any()
    torch.testing.assert_close(logpert_loss(u, y, lam), objective(u, logpert(u, y, lam), y, lam))


@pytest.mark.parametrize("lam", [0.05, 0.35, 0.9, 1.0, 2.5])
def test_loss_has_the_gradient_at_the_fixed_minimiser(lam):
    u, y = draw(32, 6)
    u.requires_grad_()
    (gradient,) = torch.autograd.grad(logpert_loss(u, y, lam).sum(), u)
    expected = (u + logpert(u, y, lam)).softmax(1) - torch.eye(6, dtype=u.dtype)[y]
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() <= lam + 1e-12


def test_loss_gradcheck():
    u, y = draw(6, 4)
    assert gradcheck(lambda w: logpert_loss(w, y, 0.3), (u.requires_grad_(),))


@pytest.mark.parametrize("lam", [1.0, 3.0, torch.tensor(1.0), torch.tensor([3.0] * 8)])
def test_large_lam_is_cross_entropy(lam):
    u, y = draw(8, 5)
    assert not logpert(u, y, lam).any()
    torch.testing.assert_close(logpert_loss(u, y, lam), torch.nn.functional.cross_entropy(u, y, reduction="none"))


def test_tensor_lam_equals_numbers_and_gets_the_norm_as_gradient():
    u, y = draw(8, 5)
    lam = torch.linspace(0.05, 1.2, 8, dtype=torch.float64).requires_grad_()
    for i, value in enumerate(lam.tolist()):
        torch.testing.assert_close(logpert(u, y, lam)[i], logpert(u, y, value)[i])
        torch.testing.assert_close(logpert_loss(u, y, lam)[i], logpert_loss(u, y, value)[i])
    (gradient,) = torch.autograd.grad(logpert_loss(u, y, lam).sum(), lam)
    torch.testing.assert_close(gradient, logpert(u, y, lam).sum(1))
    assert gradcheck(lambda weight: logpert_loss(u, y, weight), (lam,))


def test_minimiser_is_a_constant():
    u, y = draw(4, 3)
    assert not logpert(u.requires_grad_(), y, 0.2).requires_grad


def test_extreme_logits():
    u = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    y = torch.tensor([0, 1, 2])
    v = logpert(u, y, 0.2)
    assert v.isfinite().all()
    torch.testing.assert_close((u + v).softmax(1)[1], torch.tensor([0.2, 0.8, 0.0]), atol=2e-3, rtol=0)
    loss = logpert_loss(u, y, 0.2)
    torch.testing.assert_close(loss[1].item(), 0.2 * (2e4 + math.log(4)) - math.log(0.8), rtol=1e-6, atol=0)
    loss.sum().backward()
    assert u.grad.isfinite().all()


def test_step_by_hand():
    u = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    p = math.e / (math.e + 1)
    y = torch.tensor([0])
    subgradient = logpert_step(u, v, y, 0.3, 0.5)
    assert subgradient[0].tolist() == pytest.approx([1 - 0.5 * (p - 1 + 0.3), -0.5 * (1 - p)])
    prox = logpert_step(u, v, y, 0.3, 0.5, solver="prox")
    assert prox[0].tolist() == pytest.approx([1 - 0.5 * (p - 1) - 0.15, 0.0])
    assert v.tolist() == [[1.0, 0.0]]


def test_steps_lead_to_the_exact_minimiser():
    u, y = draw(8, 5)
    exact = logpert(u, y, 0.3)
    v = torch.zeros_like(u)
    for _ in range(4000):
        v = logpert_step(u, v, y, 0.3, 2.0, solver="prox")
    torch.testing.assert_close(v, exact, atol=1e-6, rtol=0)
    assert torch.equal(v == 0, exact == 0)
    v = torch.zeros_like(u)
    for k in range(4000):
        v = logpert_step(u, v, y, 0.3, 2.0 / (1 + 0.1 * k))
    # where one rival holds nearly all the rest, v itself is slow to settle
    assert (objective(u, torch.zeros_like(u), y, 0.3) - logpert_loss(u, y, 0.3)).max() > 0.5
    torch.testing.assert_close(objective(u, v, y, 0.3), logpert_loss(u, y, 0.3), atol=2e-2, rtol=0)


def test_step_keeps_the_storage_dtype():
    u, y = draw(4, 3)
    v = torch.zeros(4, 3, dtype=torch.float16)
    new = logpert_step(u.float(), v, y, 0.1, 0.469)
    assert new.dtype == torch.float16
    torch.testing.assert_close(new, logpert_step(u.float(), v.float(), y, 0.1, 0.469).half())


@pytest.mark.parametrize("lam", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_lam(lam):
    u, y = draw(4, 3)
    for call in (logpert, logpert_loss, lambda u, y, lam: logpert_step(u, u, y, lam, 1.0)):
        with pytest.raises(ValueError, match="lam="):
            call(u, y, lam)


def test_bad_step():
    u, y = draw(4, 3)
    with pytest.raises(ValueError, match="solver='newton'"):
        logpert_step(u, u, y, 0.1, 1.0, solver="newton")
    with pytest.raises(ValueError, match="lr="):
        logpert_step(u, u, y, 0.1, 0.0)
    with pytest.raises(ValueError, match="v has the shape"):
        logpert_step(u, u[:2], y, 0.1, 1.0)
