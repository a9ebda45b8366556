import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import normalized_cross_entropy, normalized_focal_loss


def draw(batch=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * 3
    return u, torch.randint(classes, (batch,), generator=generator)


def by_hand(u, y, gamma):
    p = np.exp(u.numpy()) / np.exp(u.numpy()).sum(1, keepdims=True)
    losses = -((1 - p) ** gamma) * np.log(p)
    return losses[np.arange(len(y)), y.numpy()] / losses.sum(1)


def test_the_formulas():
    u, y = draw()
    np.testing.assert_allclose(normalized_cross_entropy(u, y).numpy(), by_hand(u, y, 0.0))
    np.testing.assert_allclose(normalized_focal_loss(u, y, 0.7).numpy(), by_hand(u, y, 0.7))
    torch.testing.assert_close(normalized_focal_loss(u, y, 0.0), normalized_cross_entropy(u, y))
    gamma = torch.linspace(0, 2, 8, dtype=torch.float64)
    alone = torch.cat([normalized_focal_loss(u[i : i + 1], y[i : i + 1], float(g)) for i, g in enumerate(gamma)])
    torch.testing.assert_close(normalized_focal_loss(u, y, gamma), alone)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.floats(0, 4), st.integers(0, 1000), st.floats(0.01, 1e4))
def test_they_are_symmetric(classes, gamma, seed, scale):
    u, _ = draw(1, classes, seed)
    every, labels = (u * scale).expand(classes, classes), torch.arange(classes)
    assert normalized_cross_entropy(every, labels).sum().item() == pytest.approx(1)
    assert normalized_focal_loss(every, labels, gamma).sum().item() == pytest.approx(1)


def test_limits():
    # of two classes the sure and right one costs nothing, the sure and wrong one everything
    u = torch.tensor([[1e4, -1e4], [1e4, -1e4], [0.0, 0.0]])
    y = torch.tensor([0, 1, 0])
    for loss in (normalized_cross_entropy, normalized_focal_loss):
        assert loss(u, y).tolist() == [0.0, 1.0, 0.5]
    # the digits of a small loss survive
    small = normalized_cross_entropy(torch.tensor([[0.0, -30.0]], dtype=torch.float64), torch.tensor([0]))
    assert small.item() == pytest.approx(np.exp(-30) / 30, rel=1e-9)


def test_gradients():
    u, y = draw(4)
    gamma = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u: normalized_cross_entropy(u, y), u.requires_grad_())
    assert gradcheck(lambda u, g: normalized_focal_loss(u, y, g), (u, gamma))
    assert gradgradcheck(lambda u: normalized_focal_loss(u, y, 0.5), u)
    # published: the weights are constants
    weight = (1 - u.softmax(1)).sqrt().detach()
    losses = -weight * u.log_softmax(1)
    expected = torch.autograd.grad((losses[range(4), y] / losses.sum(1)).sum(), u)[0]
    found = torch.autograd.grad(normalized_focal_loss(u, y, detach_weight=True).sum(), u)[0]
    torch.testing.assert_close(found, expected)
    whole = torch.autograd.grad(normalized_focal_loss(u, y).sum(), u)[0]
    assert not torch.allclose(whole, expected)


def test_bad_input():
    u, y = draw()
    with pytest.raises(ValueError, match="gamma=-1"):
        normalized_focal_loss(u, y, -1.0)
    with pytest.raises(ValueError, match="class ids"):
        normalized_cross_entropy(u, y.float())
