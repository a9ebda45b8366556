import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import (
    class_balanced_focal_loss,
    effective_number_weights,
    inverse_frequency_weights,
)

COUNTS = torch.tensor([int(500 * 0.01 ** (k / 99)) for k in range(100)])


def test_published_weights():
    weights = effective_number_weights(COUNTS)
    assert weights.sum().item() == pytest.approx(100, rel=1e-5)
    assert weights[0].item() == pytest.approx(0.045, abs=1e-3)
    assert weights[-1].item() == pytest.approx(4.38, abs=1e-2)
    n = COUNTS.numpy().astype(float)
    expected = (1 - 0.99) / (1 - 0.99**n)
    np.testing.assert_allclose(effective_number_weights(COUNTS, 0.99), expected / expected.sum() * 100, rtol=1e-5)


def test_ends_are_no_weighting_and_inverse_frequency():
    assert effective_number_weights(COUNTS, 0.0).tolist() == [1.0] * 100
    torch.testing.assert_close(
        effective_number_weights(COUNTS, 1 - 1e-12), inverse_frequency_weights(COUNTS), rtol=1e-4, atol=0
    )
    assert inverse_frequency_weights(torch.tensor([1, 3])).tolist() == pytest.approx([1.5, 0.5])


def test_focal_by_the_published_modulator():
    u = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    y, w, gamma = torch.tensor([0, 1, 2, 3, 1]), torch.tensor([0.2, 0.5, 1.3, 2.0], dtype=torch.float64), 1.5
    label, z = np.eye(4)[y], u.numpy()
    entry = np.maximum(z, 0) - z * label + np.log1p(np.exp(-np.abs(z)))
    modulator = np.exp(-gamma * label * z - gamma * np.log1p(np.exp(-z)))
    # 1 - p for a negative is exp(-gamma log(1 + e^-u)); for a positive the authors' exponent is the same expression
    expected = (modulator * entry).sum(1) * w.numpy()[y]
    np.testing.assert_allclose(class_balanced_focal_loss(u, y, w, gamma).numpy(), expected)
    assert gradcheck(lambda u: class_balanced_focal_loss(u, y, w, gamma), (u.requires_grad_(),))


def test_bad_input():
    with pytest.raises(ValueError, match="beta=1"):
        effective_number_weights(COUNTS, 1.0)
    with pytest.raises(ValueError, match=r"classes \[0\]"):
        inverse_frequency_weights(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="weights have the shape"):
        class_balanced_focal_loss(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(2))
