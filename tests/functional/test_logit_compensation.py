import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import binary_cross_entropy, logit_compensation_loss


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(6, 4, dtype=torch.float64, generator=generator) * 2
    y = torch.randint(2, (6, 4), generator=generator)
    scales = torch.rand(4, 4, dtype=torch.float64, generator=generator) + 0.5
    return u, y, scales.unbind(0)


def test_loss_of_equation_12():
    u, y, (p_scale, p_shift, n_scale, n_shift) = draw()
    z = u.numpy()
    positive = np.log1p(np.exp(-(p_scale.numpy() * z + p_shift.numpy())))
    negative = np.log1p(np.exp(n_scale.numpy() * z + n_shift.numpy()))
    expected = np.where(y.numpy() == 1, positive, negative).mean(1)
    np.testing.assert_allclose(logit_compensation_loss(u, y, p_scale, p_shift, n_scale, n_shift).numpy(), expected)


def test_neutral_is_binary_cross_entropy():
    u, y, _ = draw()
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(logit_compensation_loss(u, y, one, zero, one, zero), binary_cross_entropy(u, y))


def test_gradients_reach_all_four():
    u, y, learned = draw()
    inputs = (u.requires_grad_(), *(v.detach().clone().requires_grad_() for v in learned))
    assert gradcheck(lambda u, *v: logit_compensation_loss(u, y, *v), inputs)
    # labels decide which of the two pairs of a class gets any
    all_positive = torch.ones_like(y)
    gradients = torch.autograd.grad(logit_compensation_loss(u, all_positive, *inputs[1:]).sum(), inputs[1:])
    assert all(g.any() for g in gradients[:2])
    assert not any(g.any() for g in gradients[2:])


def test_bad_input():
    u, y, learned = draw()
    with pytest.raises(ValueError, match="negative_scale has the shape"):
        logit_compensation_loss(u, y, learned[0], learned[1], learned[2][:2], learned[3])
    with pytest.raises(ValueError, match="must both be"):
        logit_compensation_loss(u, y[0], *learned)
