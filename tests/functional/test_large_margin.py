import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import large_margin_logits


def draw(batch=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(batch, 3, dtype=torch.float64, generator=generator)
    W = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    return h, W, torch.randint(4, (batch,), generator=generator)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_definition(m, beta):
    h, W, y = draw(64)
    logits = large_margin_logits(h, W, y, m, beta).numpy()
    plain = h.numpy() @ W.numpy().T
    for i, c in enumerate(y.tolist()):
        length = np.linalg.norm(h[i]) * np.linalg.norm(W[c])
        theta = math.acos(plain[i, c] / length)
        k = min(int(m * theta / math.pi), m - 1)
        psi = (-1) ** k * math.cos(m * theta) - 2 * k
        plain[i, c] = (length * psi + beta * plain[i, c]) / (1 + beta)
    np.testing.assert_allclose(logits, plain, atol=1e-10)


def test_psi_is_continuous_and_falls():
    angles = torch.linspace(0.001, math.pi - 0.001, 2000, dtype=torch.float64)
    h = torch.stack([angles.cos(), angles.sin()], 1)
    W, y = torch.eye(2, dtype=torch.float64), torch.zeros(2000, dtype=torch.int64)
    for m in (2, 3, 4):
        own = large_margin_logits(h, W, y, m)[:, 0]
        assert (own.diff() < 0).all()
        assert own.diff().abs().max() < 0.02
        assert own[0].item() == pytest.approx(1, abs=1e-4)
        assert own[-1].item() == pytest.approx(1 - 2 * m, abs=1e-4)


def test_gradcheck_and_large_beta():
    h, W, y = draw()
    inputs = (h.requires_grad_(), W.requires_grad_())
    assert gradcheck(lambda h, W: large_margin_logits(h, W, y, 4, 1.0), inputs)
    torch.testing.assert_close(large_margin_logits(h, W, y, 4, 1e12), h @ W.t())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_finite_also_where_the_angle_ends(scale):
    W, y = torch.eye(3), torch.tensor([0, 1, 2])
    for h in (torch.eye(3), -torch.eye(3), torch.randn(3, 3)):
        h = (h * scale).requires_grad_()
        large_margin_logits(h, W, y).sum().backward()
        assert h.grad.isfinite().all()


def test_bad_input():
    h, W, y = draw()
    with pytest.raises(ValueError, match="m=0"):
        large_margin_logits(h, W, y, 0)
    with pytest.raises(ValueError, match="beta=-1"):
        large_margin_logits(h, W, y, 2, -1.0)
    with pytest.raises(ValueError, match="must be"):
        large_margin_logits(h, W[:, :2], y)
