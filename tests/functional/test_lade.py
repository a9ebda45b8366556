import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import lade_regularization, log_prior

COUNTS = torch.tensor([60, 30, 9, 1])


def draw(batch=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, 4, dtype=torch.float64, generator=generator) * 2
    return u, torch.randint(3, (batch,), generator=generator)


def test_one_class_at_a_time():
    # no sample is of the fourth class
    u, y = draw()
    prior, expected = COUNTS.numpy() / 100, 0.0
    for c in range(4):
        own = u.numpy()[y.numpy() == c, c]
        mean = own.mean() if len(own) else 0.0
        spread = np.log(np.mean(np.exp(u.numpy()[:, c]) / prior[c] / 4))
        expected += prior[c] * (spread - mean + 0.3 * spread**2)
    assert float(lade_regularization(u, y, log_prior(COUNTS.double()), 0.3)) == pytest.approx(expected)


def test_without_the_square_a_shift_of_a_class_that_is_there_changes_nothing():
    u, y = draw()
    y = torch.arange(7) % 4
    prior = log_prior(COUNTS.double())
    shift = torch.tensor([1.0, -2.0, 5.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(lade_regularization(u + shift, y, prior, 0.0), lade_regularization(u, y, prior, 0.0))
    assert lade_regularization(u + shift, y, prior, 0.1) != lade_regularization(u, y, prior, 0.1)


def test_gradient_large_logits_and_half_precision():
    u, y = draw()
    prior = log_prior(COUNTS.double())
    assert gradcheck(lambda x: lade_regularization(x, y, prior), (u.requires_grad_(),))
    assert lade_regularization(u.detach() * 1e4, y, prior).isfinite()
    assert lade_regularization(u.detach().bfloat16(), y, prior).dtype == torch.float32


def test_bad_arguments():
    u, y = draw()
    with pytest.raises(ValueError, match="lam=-1"):
        lade_regularization(u, y, log_prior(COUNTS.double()), -1.0)
    with pytest.raises(ValueError, match=r"log_prior has the shape \(3,\) where \[4\]"):
        lade_regularization(u, y, log_prior(COUNTS[:3]))
