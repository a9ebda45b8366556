import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import center_loss, update_centers


def test_by_hand():
    h, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 3, 0])
    np.testing.assert_allclose(center_loss(h, y, c).numpy(), 0.5 * ((h.numpy() - c.numpy()[y]) ** 2).sum(1))
    assert gradcheck(lambda h, c: center_loss(h, y, c), (h.requires_grad_(), c.requires_grad_()))
    assert center_loss(h.bfloat16(), y, c).dtype == torch.float32


def test_update_by_the_paper_rule():
    h, c = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    y, before = torch.tensor([0, 1, 1, 3, 0]), c.clone()
    expected = c.numpy().copy()
    for j in range(4):
        own = h.numpy()[y.numpy() == j]
        expected[j] -= 0.5 * (c.numpy()[j] - own).sum(0) / (1 + len(own))
    new = update_centers(c, h.requires_grad_(), y)
    np.testing.assert_allclose(new.numpy(), expected)
    assert not new.requires_grad
    assert torch.equal(c, before)
    assert torch.equal(new[2], c[2])
    assert torch.equal(update_centers(c, h[:0], y[:0]), c)


def test_centres_settle_at_the_class_means():
    h, y = torch.randn(20, 3), torch.arange(20) % 2
    c = torch.zeros(2, 3)
    for _ in range(100):
        c = update_centers(c, h, y)
    torch.testing.assert_close(c, torch.stack([h[y == j].mean(0) for j in range(2)]))


def test_bad_input():
    h, y, c = torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(4, 3)
    with pytest.raises(ValueError, match="alpha=2"):
        update_centers(c, h, y, 2.0)
    with pytest.raises(ValueError, match="must be"):
        center_loss(h, y, c[:, :2])
