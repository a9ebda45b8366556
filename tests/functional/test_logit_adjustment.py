import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import cross_entropy, log_prior, logit_adjustment

COUNTS = torch.tensor([60, 30, 10])


def draw(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, 3, dtype=torch.float64, generator=generator) * 2
    return u, torch.randint(3, (batch,), generator=generator)


def test_prior():
    assert log_prior(COUNTS).exp().tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert log_prior(COUNTS.double()).dtype == torch.float64


def test_loss_of_equation_12():
    u, y = draw()
    loss = cross_entropy(logit_adjustment(u, log_prior(COUNTS.double()), 1.5), y).numpy()
    weighted = np.exp(u.numpy()) * np.array([0.6, 0.3, 0.1]) ** 1.5
    np.testing.assert_allclose(loss, -np.log(weighted[np.arange(6), y] / weighted.sum(1)))


def test_at_one_it_is_the_balanced_softmax():
    u, y = draw()
    exp = u.exp() * COUNTS
    expected = -(exp[torch.arange(6), y] / exp.sum(1)).log()
    torch.testing.assert_close(cross_entropy(logit_adjustment(u, log_prior(COUNTS.double()), 1.0), y), expected)


def test_no_strength_is_cross_entropy_and_post_hoc_undoes_it():
    u, _ = draw()
    prior = log_prior(COUNTS.double())
    assert torch.equal(logit_adjustment(u, prior, 0.0), u)
    torch.testing.assert_close(logit_adjustment(logit_adjustment(u, prior, 1.3), prior, -1.3), u)


def test_balanced_prediction_is_the_optimum_of_the_adjusted_loss():
    # one feature value, labels in the proportion of the prior: the adjusted optimum is undecided, the plain one is not
    u = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    prior = log_prior(COUNTS.double())
    (prior.exp() * cross_entropy(logit_adjustment(u.expand(3, 3), prior), torch.arange(3))).sum().backward()
    np.testing.assert_allclose(u.grad.numpy(), 0, atol=1e-12)


def test_strength_by_class_gets_gradients():
    u, y = draw()
    prior, tau = log_prior(COUNTS.double()), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u, tau: cross_entropy(logit_adjustment(u, prior, tau), y), (u.requires_grad_(), tau))
    torch.testing.assert_close(logit_adjustment(u, prior, tau)[:, 2], u[:, 2] + 2 * math.log(0.1))
    assert logit_adjustment(u.bfloat16(), prior, tau).dtype == torch.float32


def test_bad_input():
    u, _ = draw()
    prior = log_prior(COUNTS)
    with pytest.raises(ValueError, match=r"classes \[1, 2\]"):
        log_prior(torch.tensor([3, 0, 0]))
    with pytest.raises(ValueError, match="counts have the shape"):
        log_prior(torch.ones(2, 2))
    with pytest.raises(ValueError, match="log_prior has the shape"):
        logit_adjustment(u, prior[:2])
    with pytest.raises(ValueError, match="tau has the shape"):
        logit_adjustment(u, prior, torch.ones(2))
