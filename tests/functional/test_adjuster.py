import math

import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import (
    adjust,
    gce_hyperparameters,
    gce_loss,
    js_hyperparameters,
    js_loss,
    polysoft_hyperparameters,
    polysoft_loss,
    sl_hyperparameters,
    sl_loss,
)

EXTREMES = [-1e4, 0.0, 1e4]


def raw(width):
    return torch.tensor([[v] * width for v in EXTREMES])


def test_published_ranges():
    assert gce_hyperparameters(raw(1)).tolist() == pytest.approx([0.01, 0.75, 1.0])
    assert js_hyperparameters(raw(1)).tolist() == pytest.approx([0.01, 0.7, 0.99])
    gamma1, gamma2 = sl_hyperparameters(raw(2))
    assert gamma1.tolist() == gamma2.tolist() == pytest.approx([0.0, 0.5, 1.0])
    lam, d = polysoft_hyperparameters(raw(2))
    assert lam.tolist() == pytest.approx([1e-3, 5.0, 10.0])
    assert d.tolist() == pytest.approx([1.01, 3.01, 5.01])


def test_soft_range_ends_at_the_same_values():
    assert gce_hyperparameters(raw(1), soft_range=True).tolist() == pytest.approx([0.01, 0.505, 1.0])
    assert js_hyperparameters(raw(1), soft_range=True).tolist() == pytest.approx([0.01, 0.5, 0.99])
    assert sl_hyperparameters(raw(2), soft_range=True)[0].tolist() == pytest.approx([0.0, 0.5, 1.0])
    lam, d = polysoft_hyperparameters(raw(2), soft_range=True)
    assert lam.tolist() == pytest.approx([1e-3, 5.0005, 10.0])
    assert d.tolist() == pytest.approx([1.01, 3.01, 5.01])


def test_clamp_stops_the_gradient_and_soft_range_does_not():
    # sigmoid(1) = .73 is beyond 2 / 3, where 1.5 sigmoid leaves [0, 1]
    for soft, flows in ((False, False), (True, True)):
        x = torch.ones(1, 1, requires_grad=True)
        gce_hyperparameters(x, soft_range=soft).sum().backward()
        assert bool(x.grad.abs().sum() > 0) is flows


def test_columns_are_independent():
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    gamma1, _ = sl_hyperparameters(x)
    (gradient,) = torch.autograd.grad(gamma1.sum(), x)
    assert (gradient[:, 0] > 0).all()
    assert not gradient[:, 1].any()


@pytest.mark.parametrize("soft", [False, True])
def test_gradient_reaches_the_adjuster_through_each_loss(soft):
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(4, (5,), generator=generator)
    one = torch.randn(5, 1, dtype=torch.float64, generator=generator).sub_(1).requires_grad_()
    two = torch.randn(5, 2, dtype=torch.float64, generator=generator).requires_grad_()
    assert gradcheck(lambda x: gce_loss(u, y, gce_hyperparameters(x, soft_range=soft)), (one,))
    assert gradcheck(lambda x: js_loss(u, y, js_hyperparameters(x, soft_range=soft)), (one,))
    assert gradcheck(lambda x: sl_loss(u, y, *sl_hyperparameters(x, soft_range=soft)), (two,))
    assert gradcheck(lambda x: polysoft_loss(u, y, *polysoft_hyperparameters(x, soft_range=soft)), (two,))


def test_half_precision_outputs_give_float32():
    assert gce_hyperparameters(torch.zeros(3, 1, dtype=torch.bfloat16)).dtype == torch.float32


def test_offset_and_bounds():
    x = torch.tensor([[math.log(3.0), 0.0]])
    values = adjust(x, [4.0, 2.0], [0.0, 1.0], [2.5, 9.0], offset=[0.0, 1.0])
    assert values.tolist() == [[2.5, 2.0]]


def test_bad_input():
    with pytest.raises(ValueError, match=r"raw has the shape \(3, 2\)"):
        gce_hyperparameters(raw(2))
    with pytest.raises(ValueError, match="entries"):
        adjust(raw(2), [1.0, 1.0], [0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="scale=0"):
        gce_hyperparameters(raw(1), scale=0.0)
    with pytest.raises(ValueError, match="low=2"):
        gce_hyperparameters(raw(1), low=2.0)
