import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import cosine_logits


def test_by_hand():
    h, W = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    expected = (h.numpy() @ W.numpy().T) / np.linalg.norm(h, axis=1)[:, None] / np.linalg.norm(W, axis=1)
    np.testing.assert_allclose(cosine_logits(h, W).numpy(), expected)
    torch.testing.assert_close(cosine_logits(3 * h, 0.1 * W), cosine_logits(h, W))
    assert gradcheck(cosine_logits, (h.requires_grad_(), W.requires_grad_()))


def test_zero_and_half_precision():
    cosine = cosine_logits(torch.zeros(2, 3, dtype=torch.bfloat16), torch.ones(4, 3))
    assert cosine.dtype == torch.float32
    assert not cosine.any()
    h, W = torch.randn(5, 64), torch.randn(4, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = cosine_logits(h, W)
    torch.testing.assert_close(mixed, cosine_logits(h, W))


def test_bad_input():
    with pytest.raises(ValueError, match="must be"):
        cosine_logits(torch.ones(2, 3), torch.ones(4, 2))
