import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import (
    binary_cross_entropy,
    binary_focal_loss,
    distribution_balanced_loss,
    negative_tolerant_bias,
    rebalanced_weights,
)

COUNTS = torch.tensor([50.0, 8, 3, 20])


def draw(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, 4, dtype=torch.float64, generator=generator) * 2
    y = torch.randint(2, (batch, 4), generator=generator)
    y[0] = 0
    return u, y


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def test_weights_by_hand():
    _, y = draw()
    weights = rebalanced_weights(y, COUNTS, 0.1, 10.0, 0.2).numpy()
    for i in range(6):
        drawn = sum(y[i, j].item() / COUNTS[j].item() for j in range(4))
        for c in range(4):
            if drawn:
                r = 1 / COUNTS[c].item() / drawn
                assert weights[i, c] == pytest.approx(0.1 + 1 / (1 + np.exp(-10 * (r - 0.2))), rel=1e-4)
    # a sample without labels is drawn for none of its classes: the largest weight, not a NaN
    assert weights[0].tolist() == pytest.approx([1.1] * 4)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("lam", [1.0, 5.0])
def test_loss_by_hand(gamma, lam):
    u, y = draw()
    weights = rebalanced_weights(y.double(), COUNTS)
    bias = negative_tolerant_bias(COUNTS, 100, lam=lam).double()
    z, label = u.numpy() + bias.numpy(), y.numpy()
    p_t = 1 / (1 + np.exp(np.where(label == 1, -z, lam * z)))
    entries = np.where(label == 1, softplus(-z), softplus(lam * z) / lam) * weights.numpy()
    if gamma:
        entries = entries * 2.0 * (1 - p_t) ** gamma
    loss = distribution_balanced_loss(u, y, weights, bias, lam, gamma)
    np.testing.assert_allclose(loss.numpy(), entries.mean(1))


def test_parts():
    u, y = draw()
    torch.testing.assert_close(distribution_balanced_loss(u, y), binary_cross_entropy(u, y))
    focal = distribution_balanced_loss(u, y, gamma=2.0, focal_scale=1.0)
    torch.testing.assert_close(focal, binary_focal_loss(u, y, 2.0))


def test_bias_of_equations_10_and_11():
    # psi = kappa / lambda = .01: v = psi log(N / N_c - 1) and the perturbation is -v
    bias = negative_tolerant_bias(COUNTS, 100, kappa=0.05, lam=5.0)
    np.testing.assert_allclose(bias.numpy(), -0.01 * np.log(100 / COUNTS.numpy() - 1), atol=1e-8)
    assert bias[0] == 0
    assert (bias[1:] < 0).all()
    # so the loss of positives of rare classes rises and that of negatives falls
    zero = torch.zeros(1, 4)
    rise = distribution_balanced_loss(zero, zero + 1, bias=bias) - distribution_balanced_loss(zero, zero + 1)
    assert rise.item() > 0
    assert (distribution_balanced_loss(zero, zero, bias=bias) < distribution_balanced_loss(zero, zero)).all()


def test_gradcheck_and_extremes():
    u, y = draw()
    weights, bias = rebalanced_weights(y.double(), COUNTS), negative_tolerant_bias(COUNTS, 100).double()
    assert gradcheck(
        lambda u, b: distribution_balanced_loss(u, y, weights, b, 5.0, 2.0), (u.requires_grad_(), bias.requires_grad_())
    )
    for dtype in (torch.bfloat16, torch.float32):
        extreme = (u.detach() * 1e4).to(dtype).requires_grad_()
        loss = distribution_balanced_loss(extreme, y, weights, bias, 5.0, 2.0)
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert loss.isfinite().all()
        assert extreme.grad.isfinite().all()


def test_soft_labels_are_between():
    u, y = draw()
    half = distribution_balanced_loss(u, torch.full((6, 4), 0.5), lam=2.0, gamma=2.0)
    ends = [distribution_balanced_loss(u, torch.full((6, 4), v), lam=2.0, gamma=2.0) for v in (0.0, 1.0)]
    torch.testing.assert_close(half, (ends[0] + ends[1]) / 2)
    assert y.dtype == torch.int64


def test_bad_input():
    u, y = draw()
    for match, call in (
        (r"classes \[0\]", lambda: negative_tolerant_bias(COUNTS, 50)),
        (r"classes \[1\]", lambda: negative_tolerant_bias(torch.tensor([3, 0]), 50)),
        ("kappa=-1", lambda: negative_tolerant_bias(COUNTS, 100, kappa=-1.0)),
        ("lam=0", lambda: distribution_balanced_loss(u, y, lam=0.0)),
        ("gamma=-1", lambda: distribution_balanced_loss(u, y, gamma=-1.0)),
        ("weights of shape", lambda: distribution_balanced_loss(u, y, weights=COUNTS)),
        ("bias of shape", lambda: distribution_balanced_loss(u, y, bias=COUNTS[:2])),
        ("must both be", lambda: distribution_balanced_loss(u, y[:, 0])),
        ("must be", lambda: rebalanced_weights(y, COUNTS[:2])),
        ("beta=0", lambda: rebalanced_weights(y, COUNTS, beta=0.0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
