import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import mae_loss, rce_loss, sl_loss


def draw(batch=8, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * 3
    return u, torch.randint(classes, (batch,), generator=generator)


def test_rce_exchanges_prediction_and_label():
    u, y = draw()
    p, label = u.softmax(1).numpy(), np.eye(5)[y]
    # log 1 = 0 for the given class, A for all others
    logarithm = np.where(label == 1, 0.0, -9.21)
    np.testing.assert_allclose(rce_loss(u, y, A=-9.21).numpy(), -(p * logarithm).sum(1))
    np.testing.assert_allclose(rce_loss(u, y).numpy(), 4 * (1 - p[np.arange(8), y]))


def test_mae_is_half_the_absolute_error():
    u, y = draw()
    np.testing.assert_allclose(mae_loss(u, y).numpy(), np.abs(u.softmax(1).numpy() - np.eye(5)[y]).sum(1) / 2)


def test_mae_and_rce_are_symmetric():
    u, _ = draw(1)
    labels = torch.arange(5)
    assert mae_loss(u.expand(5, 5), labels).sum().item() == pytest.approx(4)
    assert rce_loss(u.expand(5, 5), labels).sum().item() == pytest.approx(16)


def test_mae_of_a_sure_prediction_keeps_its_digits():
    u = torch.tensor([[0.0, -12.0]])
    assert mae_loss(u, torch.tensor([0])).item() == pytest.approx(1 / (1 + math.exp(12)), rel=1e-2)


def test_sl_is_the_weighted_sum():
    u, y = draw()
    cross_entropy = torch.nn.functional.cross_entropy(u, y, reduction="none")
    torch.testing.assert_close(sl_loss(u, y, 0.3, 2.0, A=-6.0), 0.3 * cross_entropy + 2 * 6 * mae_loss(u, y))
    torch.testing.assert_close(sl_loss(u, y, 1.0, 0.0), cross_entropy)
    torch.testing.assert_close(sl_loss(u, y, 0.0, 1.0), rce_loss(u, y))
    gamma = torch.linspace(0.1, 3, 8, dtype=torch.float64)
    alone = torch.cat([sl_loss(u[i : i + 1], y[i : i + 1], float(g), 1 - float(g) / 3) for i, g in enumerate(gamma)])
    torch.testing.assert_close(sl_loss(u, y, gamma, 1 - gamma / 3), alone)


def test_gradcheck():
    u, y = draw()
    gammas = [torch.rand(8, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert gradcheck(lambda u, a, b: sl_loss(u, y, a, b), (u.requires_grad_(), *gammas))
    assert gradgradcheck(lambda u, a, b: sl_loss(u, y, a, b), (u, *gammas))


def test_bad_input():
    u, y = draw()
    for call in (lambda: rce_loss(u, y, A=0.0), lambda: sl_loss(u, y, A=4.0), lambda: sl_loss(u, y, A=math.nan)):
        with pytest.raises(ValueError, match="A="):
            call()
    with pytest.raises(ValueError, match="gamma1=-1"):
        sl_loss(u, y, gamma1=-1.0)
    with pytest.raises(ValueError, match="gamma2 has the shape"):
        sl_loss(u, y, gamma2=torch.ones(8, 1))
