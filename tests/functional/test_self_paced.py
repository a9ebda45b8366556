import math

import pytest
import torch

from lightning_perturb.functional import (
    linear_spl_weights,
    logarithmic_spl_weights,
    loss_ratio,
    mixture_spl_weights,
    spl_weights,
)

GRID = torch.linspace(0, 1, 10_001, dtype=torch.float64)
LOSSES = torch.tensor([0.0, 0.01, 0.1, 0.25, 0.4, 0.59, 0.61, 0.8, 3.0, 1e4], dtype=torch.float64)


def best(regulariser):
    """The minimiser of w l + f(w) over a fine grid of w in [0, 1]."""
    values = GRID * LOSSES[:, None] + regulariser(GRID)
    return GRID[values.argmin(1)]


def test_hard_weights():
    assert spl_weights(torch.tensor([0.0, 1.0, 1.5]), 1.0).tolist() == [1, 1, 0]
    assert torch.equal(spl_weights(LOSSES, 0.6), best(lambda w: -0.6 * w))


def test_linear_weights():
    expected = best(lambda w: 0.6 * (w**2 / 2 - w))
    torch.testing.assert_close(linear_spl_weights(LOSSES, 0.6), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lam", [0.2, 0.6, 0.95])
def test_logarithmic_weights(lam):
    zeta = 1 - lam
    expected = best(lambda w: zeta * w - zeta**w / math.log(zeta))
    torch.testing.assert_close(logarithmic_spl_weights(LOSSES, lam), expected, atol=1e-4, rtol=0)


def test_mixture_weights():
    zeta = 0.6 * 0.2 / 0.4
    expected = best(lambda w: -zeta * (w + zeta / 0.6).log())
    torch.testing.assert_close(mixture_spl_weights(LOSSES, 0.6, 0.2), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lam", [0.0, -1.0])
def test_bad_lam(lam):
    for call in (
        spl_weights,
        linear_spl_weights,
        logarithmic_spl_weights,
        lambda x, lam: mixture_spl_weights(x, lam, 1),
    ):
        with pytest.raises(ValueError, match="lam="):
            call(LOSSES, lam)


def test_bad_intervals():
    with pytest.raises(ValueError, match="lam=1"):
        logarithmic_spl_weights(LOSSES, 1.0)
    with pytest.raises(ValueError, match="lam_low="):
        mixture_spl_weights(LOSSES, 0.5, 0.5)


def test_loss_ratio_is_one_below_tau_and_falls_to_zero_above():
    torch.manual_seed(0)
    u = torch.randn(200, 10, dtype=torch.float64)
    y = torch.randint(10, (200,))
    loss = u.logsumexp(1) - u[torch.arange(200), y]
    eta = 2.5 * u.norm(dim=1).max().item()
    ratio = loss_ratio(u, y, eta, tau=2.0)
    assert (ratio[loss < 2.0] == 1).all()
    assert (ratio[loss >= 2.0] < 1e-2).all()
    assert (loss >= 2.0).any()
    assert (loss < 2.0).any()


def test_loss_ratio_by_hand_and_without_loss():
    u = torch.tensor([[0.0, 0.0], [1e4, -1e4]])
    ratio = loss_ratio(u, torch.tensor([0, 0]), 1.0, 0.0)
    assert ratio.tolist() == pytest.approx([math.log1p(math.exp(-1.0)) / math.log(2.0), 1.0])
    assert torch.equal(loss_ratio(u, torch.tensor([0, 0]), 0.0, 0.0), torch.ones(2))
