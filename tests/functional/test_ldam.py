import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import cosine_logits, cross_entropy, ldam_logits, ldam_margins


def test_published_margins():
    counts = torch.tensor([int(500 * 0.01 ** (k / 99)) for k in range(100)])
    margins = ldam_margins(counts)
    assert margins[0].item() == pytest.approx(0.158, abs=1e-3)
    assert margins[-1].item() == pytest.approx(0.5)
    np.testing.assert_allclose(margins.numpy(), 0.5 * (counts.numpy() / 5.0) ** -0.25, rtol=1e-6)


def test_loss_of_equation_8():
    u = torch.randn(6, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    m = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    loss = cross_entropy(ldam_logits(u, y, m, scale=5.0), y).numpy()
    for i, c in enumerate(y.tolist()):
        own = math.exp(5 * (u[i, c] - m[c]))
        rest = sum(math.exp(5 * u[i, j]) for j in range(4) if j != c)
        assert loss[i] == pytest.approx(-math.log(own / (own + rest)))
    assert torch.equal(ldam_logits(u, y, m * 0, scale=1.0), u)
    assert (loss > cross_entropy(5 * u, y).numpy()).all()


def test_gradcheck_through_the_cosines():
    h, W = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    y, m = torch.tensor([0, 1, 2, 3, 0]), ldam_margins(torch.tensor([40.0, 20, 10, 5]).double())
    assert gradcheck(lambda h, W: cross_entropy(ldam_logits(cosine_logits(h, W), y, m), y), (h, W))


def test_bad_input():
    u, y = torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"classes \[1\]"):
        ldam_margins(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="largest=0"):
        ldam_margins(torch.tensor([1, 2]), 0.0)
    with pytest.raises(ValueError, match="margins have the shape"):
        ldam_logits(u, y, torch.ones(2))
    with pytest.raises(ValueError, match="scale=0"):
        ldam_logits(u, y, torch.ones(3), scale=0.0)
