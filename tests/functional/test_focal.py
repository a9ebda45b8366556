import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import binary_cross_entropy, binary_focal_loss, cross_entropy, focal_loss


def draw(batch=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * 2
    return u, torch.randint(classes, (batch,), generator=generator)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_definition(gamma):
    u, y = draw()
    p = u.softmax(1).numpy()[np.arange(6), y]
    np.testing.assert_allclose(focal_loss(u, y, gamma).numpy(), -((1 - p) ** gamma) * np.log(p))


def test_no_focus_is_cross_entropy():
    u, y = draw()
    assert torch.equal(focal_loss(u, y, 0.0), cross_entropy(u, y))
    multi = torch.randint(2, (6, 4))
    torch.testing.assert_close(binary_focal_loss(u, multi, 0.0), binary_cross_entropy(u, multi))


def test_gamma_by_sample():
    u, y = draw()
    gamma = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    alone = torch.cat([focal_loss(u[i : i + 1], y[i : i + 1], float(g)) for i, g in enumerate(gamma)])
    torch.testing.assert_close(focal_loss(u, y, gamma), alone)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_binary_definition(alpha):
    u, _ = draw()
    y = torch.randint(2, (6, 4), generator=torch.Generator().manual_seed(1)).numpy()
    p = 1 / (1 + np.exp(-u.numpy()))
    p_t = np.where(y == 1, p, 1 - p)
    weight = 1.0 if alpha is None else np.where(y == 1, alpha, 1 - alpha)
    expected = (weight * -((1 - p_t) ** 2) * np.log(p_t)).mean(1)
    np.testing.assert_allclose(binary_focal_loss(u, torch.from_numpy(y), 2.0, alpha).numpy(), expected)


def test_gradcheck():
    u, y = draw()
    gamma = torch.linspace(0.3, 3, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, gamma: focal_loss(u, y, gamma), (u.requires_grad_(), gamma))
    soft = torch.rand(6, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, soft: binary_focal_loss(u, soft, 2.0, 0.25), (u, soft))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_learnt_samples_have_finite_gradients(gamma):
    u = torch.tensor([[1e4, -1e4], [40.0, 0.0], [-1e4, 1e4]], requires_grad=True)
    focal_loss(u, torch.zeros(3, dtype=torch.int64), gamma).sum().backward()
    assert u.grad.isfinite().all()
    u.grad = None
    binary_focal_loss(u, torch.tensor([[1, 0]] * 3), gamma).sum().backward()
    assert u.grad.isfinite().all()


def test_bad_input():
    u, y = draw()
    with pytest.raises(ValueError, match="gamma=-1"):
        focal_loss(u, y, -1.0)
    with pytest.raises(ValueError, match="gamma=-1"):
        binary_focal_loss(u, u, -1.0)
    with pytest.raises(ValueError, match="alpha=2"):
        binary_focal_loss(u, u, 2.0, 2.0)
    with pytest.raises(ValueError, match="must both be"):
        binary_focal_loss(u, y)
