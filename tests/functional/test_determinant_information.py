import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import dmi_loss, joint_distribution


def draw(batch=40, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * 3
    return u, torch.arange(batch) % classes


def exact(u, y, missing="present"):
    return dmi_loss(u, y, missing, floor=0.0)


def by_hand(u, y):
    return sum(np.outer(np.eye(u.shape[1])[k], p) for k, p in zip(y.tolist(), u.softmax(1).numpy(), strict=True)) / len(
        u
    )


def test_the_joint_distribution():
    u, y = draw(7)
    joint = joint_distribution(u, y)
    np.testing.assert_allclose(joint.numpy(), by_hand(u, y))
    assert joint.sum().item() == pytest.approx(1)
    assert joint_distribution(u.bfloat16(), y).dtype == torch.float64
    assert joint_distribution(u[:0], y[:0]).tolist() == [[0.0] * 4] * 4


def test_the_loss_is_the_logarithm_of_the_determinant():
    u, y = draw()
    assert exact(u, y).item() == pytest.approx(-np.linalg.slogdet(by_hand(u, y))[1])
    # sure predictions of equally many labels: U = I / C
    assert exact(100 * torch.eye(4), torch.arange(4)).item() == pytest.approx(4 * math.log(4))


def test_it_exchanges_classes_and_does_not_underflow():
    u, y = draw()
    assert exact(u[:, [2, 0, 3, 1]], y).item() == pytest.approx(exact(u, y).item())
    # the determinant itself is 1e-600 here
    many = torch.arange(200)
    assert exact(1e3 * torch.eye(200), many).item() == pytest.approx(200 * math.log(200))


def test_noise_of_classes_moves_it_by_a_constant():
    # each sample five times, with its true label thrice and two others once: exactly T = .6, .2, .2
    u, y = draw(12, 3)
    u.requires_grad_()
    T = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    noisy = torch.stack([y, y, y, (y + 1) % 3, (y + 2) % 3], 1).flatten()
    clean = exact(u, y)
    given = exact(u.repeat_interleave(5, 0), noisy)
    assert (given - clean).item() == pytest.approx(-math.log(torch.det(T).item()))
    for one, other in zip(torch.autograd.grad(given, u), torch.autograd.grad(clean, u), strict=True):
        torch.testing.assert_close(one, other)


def test_missing_classes():
    u, y = draw(6)
    some = torch.where(y == 2, 1, y)
    rows = by_hand(u, some)[[0, 1, 3]]
    expected = -0.5 * np.log(np.linalg.det(rows @ rows.T))
    assert exact(u, some).item() == pytest.approx(expected)
    u.requires_grad_()
    for nothing in (
        dmi_loss(u, some, "skip"),
        dmi_loss(u, torch.zeros_like(y)),
        dmi_loss(u, torch.zeros_like(y), "skip"),
        dmi_loss(u[:0], y[:0]),
    ):
        assert nothing.item() == 0
        assert not torch.autograd.grad(nothing, u)[0].any()
    assert exact(u, y % 4, "skip").item() == exact(u, y).item() > 0


def test_the_floor_is_added_to_the_determinant_of_the_counts():
    u, y = draw(8)
    counts = 8 * by_hand(u, y)
    expected = -np.log(abs(np.linalg.det(counts)) + 0.001) + 4 * np.log(8)
    assert dmi_loss(u, y).item() == pytest.approx(expected)
    # where the determinant is far below it, the gradient is small instead of large
    flat = (u * 1e-4).requires_grad_()
    strong, weak = (torch.autograd.grad(loss, flat)[0].norm() for loss in (exact(flat, y), dmi_loss(flat, y)))
    assert strong > 1e3
    assert weak < 1e-3
    same = torch.zeros(8, 4, requires_grad=True)
    loss = dmi_loss(same, y)
    assert loss.item() == pytest.approx(-math.log(0.001) + 4 * math.log(8))
    assert not torch.autograd.grad(loss, same)[0].any()


def test_gradients():
    u, y = draw(9)
    assert gradcheck(lambda u: exact(u, y), u.requires_grad_())
    assert gradcheck(lambda u: exact(u, y % 3), u)
    assert gradcheck(lambda u: dmi_loss(u, y, floor=2.0), u)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_and_large_logits(dtype):
    torch.manual_seed(0)
    for scale in (1.0, 100.0):
        u = (torch.randn(20, 4) * scale).to(dtype).requires_grad_()
        loss = dmi_loss(u, torch.arange(20) % 4)
        loss.backward()
        assert loss.isfinite()
        assert u.grad.isfinite().all()


def test_bad_input():
    u, y = draw()
    with pytest.raises(ValueError, match="missing='none' is unknown"):
        dmi_loss(u, y, "none")
    with pytest.raises(ValueError, match="floor=-1"):
        dmi_loss(u, y, floor=-1.0)
    with pytest.raises(ValueError, match="class ids"):
        dmi_loss(u, y[:3])
    # predictions that tell two classes nothing apart have none
    assert exact(torch.zeros(8, 4), torch.arange(8) % 4).item() == math.inf
