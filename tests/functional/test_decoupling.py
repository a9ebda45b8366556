import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import scaled_logits, tau_normalized_logits, tau_normalized_weight


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator) * torch.tensor([[3.0], [1.0], [0.2]])
    return features, weight


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 2.0])
def test_rows_over_a_power_of_their_length(tau):
    h, w = (value.numpy() for value in draw())
    expected = np.array([[a @ b / np.sqrt((b * b).sum()) ** tau for b in w] for a in h])
    np.testing.assert_allclose(tau_normalized_logits(*draw(), tau).numpy(), expected)


def test_limits():
    h, w = draw()
    assert torch.equal(tau_normalized_weight(w, 0.0), w)
    torch.testing.assert_close(tau_normalized_weight(w).norm(dim=1), torch.ones(3, dtype=torch.float64))
    # at 1 the length of a row is forgotten
    longer = w * torch.tensor([[7.0], [1.0], [100.0]])
    torch.testing.assert_close(tau_normalized_logits(h, w), tau_normalized_logits(h, longer))
    w[1] = 0
    assert torch.equal(tau_normalized_weight(w)[1], torch.zeros(4, dtype=torch.float64))
    assert tau_normalized_logits(h, w).isfinite().all()


def test_scales():
    h, w = draw()
    scale = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(scaled_logits(h @ w.t(), scale), h @ (scale[:, None] * w).t())
    assert torch.equal(scaled_logits(h @ w.t(), torch.ones(3, dtype=torch.float64)), h @ w.t())
    assert gradcheck(scaled_logits, ((h @ w.t()).requires_grad_(), scale.requires_grad_()))


def test_half_precision():
    h, w = (value.bfloat16() for value in draw())
    found = tau_normalized_logits(h, w * 100)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, tau_normalized_logits(h.float(), w.float()), rtol=0.02, atol=0.02)
    assert scaled_logits(h @ w.t(), torch.ones(3)).dtype == torch.float32


def test_wrong_shapes():
    h, w = draw()
    with pytest.raises(ValueError, match=r"weight has the shape \(3,\)"):
        tau_normalized_weight(w[:, 0])
    with pytest.raises(ValueError, match=r"features of shape \(5, 3\)"):
        tau_normalized_logits(h[:, :3], w)
    with pytest.raises(ValueError, match=r"scale has the shape \(4,\) where \[3\]"):
        scaled_logits(h @ w.t(), h[0])
