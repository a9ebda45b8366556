import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import arcface_logits


def at_angles(degrees):
    own = torch.tensor([math.cos(math.radians(d)) for d in degrees], dtype=torch.float64)
    return torch.stack([own, torch.full_like(own, 0.3)], 1), torch.zeros(len(degrees), dtype=torch.int64)


def test_margin_is_added_to_the_angle():
    degrees = [5.0, 40.0, 90.0, 140.0]
    cosine, y = at_angles(degrees)
    logits = arcface_logits(cosine, y, 0.5, 64.0)
    expected = [64 * math.cos(math.radians(d) + 0.5) for d in degrees]
    np.testing.assert_allclose(logits[:, 0].numpy(), expected)
    np.testing.assert_allclose(logits[:, 1].numpy(), 64 * 0.3)
    torch.testing.assert_close(arcface_logits(cosine, y, 0.0, 1.0), cosine)


def test_falls_with_the_angle_to_the_end():
    cosine, y = at_angles(np.linspace(0.5, 179.5, 100))
    own = arcface_logits(cosine, y, 0.5)[:, 0]
    assert (own.diff() < 0).all()


def test_margins_and_scales_by_sample():
    cosine, y = at_angles([10.0, 50.0, 90.0])
    m, s = torch.tensor([0.1, 0.3, 0.5], dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    together = arcface_logits(cosine, y, m, s)
    for i in range(3):
        alone = arcface_logits(cosine[i : i + 1], y[i : i + 1], float(m[i]), float(s[i]))
        torch.testing.assert_close(together[i : i + 1], alone)
    inputs = (cosine.requires_grad_(), m.requires_grad_(), s.requires_grad_())
    assert gradcheck(lambda c, m, s: arcface_logits(c, y, m, s), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_the_ends(dtype):
    cosine = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=dtype, requires_grad=True)
    arcface_logits(cosine, torch.tensor([0, 0])).sum().backward()
    assert cosine.grad.isfinite().all()


def test_bad_input():
    cosine, y = at_angles([10.0])
    with pytest.raises(ValueError, match="margin=2"):
        arcface_logits(cosine, y, 2.0)
    with pytest.raises(ValueError, match="scale=0"):
        arcface_logits(cosine, y, 0.5, 0.0)
