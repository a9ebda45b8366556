import math

import numpy as np
import pytest
import torch

from lightning_perturb.functional import (
    class_conditional_noise_bound,
    cross_entropy,
    gce_loss,
    gce_spread,
    js_loss,
    js_spread,
    loss_sum_range,
    mae_loss,
    noise_gaps,
    oracle_class_conditional_noise_bound,
    oracle_symmetric_noise_bounds,
    polysoft_loss,
    polysoft_spread,
    rce_loss,
    rce_spread,
    symmetric_noise_bounds,
    symmetric_transition,
)

ASYMMETRIC = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.7, 0.2], [0.0, 0.0, 1.0]], dtype=torch.float64)


def constant(logits, target):
    """PolySoft of noisy samples whose threshold is below their loss [narl Theorem 3 (2)]: (d - 1) lam / d."""
    return torch.full_like(logits[:, 0], 0.3)


def gaps(loss, transition, noisy_loss=None):
    return [g.mean().item() for g in noise_gaps(loss, transition, noisy_loss, samples=2, steps=80)]


def test_spreads_by_hand():
    assert gce_spread(10, 1.0) == 0
    assert gce_spread(10, 0.5) == pytest.approx((math.sqrt(10) - 1) / 0.5)
    assert rce_spread() == 0
    assert polysoft_spread(10, 5.0, 2.0) == pytest.approx(10 / 2 * (5 - math.log(10)))
    assert polysoft_spread(3, math.log(3), 2.0) == pytest.approx(math.log(3) / 2)
    assert js_spread(10, 1.0) == pytest.approx(0)
    # [narl 5] by hand: m = e_y pi1 + (1 - pi1) f for f another class, and for uniform f
    pi1, Z = 0.4, -0.6 * math.log(0.6)
    wrong = (-0.4 * math.log(0.4) - 0.6 * math.log(0.6)) / Z
    m_y, m_j = 0.4 + 0.06, 0.06
    uniform = (-0.4 * math.log(m_y) + 0.6 * (0.1 * math.log(0.1 / m_y) + 0.9 * math.log(0.1 / m_j))) / Z
    assert js_spread(10, pi1) == pytest.approx(9 * wrong - 10 * uniform)


@pytest.mark.parametrize("classes", [2, 5])
def test_spreads_are_those_of_the_losses(classes):
    for q in (0.3, 0.7, 1.0):
        low, high = loss_sum_range(lambda u, y, q=q: gce_loss(u, y, q), classes)
        assert high - low == pytest.approx(gce_spread(classes, q), abs=1e-6)
    for pi1 in (0.1, 0.5, 0.9):
        low, high = loss_sum_range(lambda u, y, p=pi1: js_loss(u, y, p), classes)
        assert high - low == pytest.approx(js_spread(classes, pi1), abs=1e-6)
    for loss in (mae_loss, rce_loss):
        low, high = loss_sum_range(loss, classes)
        assert high - low == pytest.approx(0, abs=1e-9)
    for lam, d in ((0.5, 3.0), (2.0, 2.0), (5.0, 1.5)):
        low, high = loss_sum_range(lambda u, y, lam=lam, d=d: polysoft_loss(u, y, lam, d), classes)
        # a bound that is not reached
        assert high <= classes * (d - 1) / d * lam + 1e-9
        assert high - low <= polysoft_spread(classes, lam, d)
    low, high = loss_sum_range(cross_entropy, classes)
    assert high - low > 20


def test_symmetric_bounds_by_the_printed_formulae():
    c, eta, q, lam, d = 10, 0.4, 0.7, 4.0, 3.0
    high, low = symmetric_noise_bounds(gce_spread(c, q), eta, c)
    assert high == pytest.approx(eta * (c ** (1 - q) - 1) / (q * (c - 1)))
    assert low == pytest.approx(eta * (1 - c ** (1 - q)) / (q * (c - 1 - eta * c)))
    high, low = symmetric_noise_bounds(polysoft_spread(c, lam, d), eta, c)
    assert high == pytest.approx(c * (d - 1) * eta / (d * (c - 1)) * (lam - math.log(c)))
    assert low == pytest.approx(c * (d - 1) * eta / (d * (c - 1 - eta * c)) * (math.log(c) - lam))
    assert symmetric_noise_bounds(0.0, eta, c) == (0.0, 0.0)
    assert symmetric_noise_bounds(1.0, 0.0, c) == (0.0, 0.0)
    assert symmetric_noise_bounds(1.0, 0.5, 2)[1] == -math.inf


def test_class_conditional_bound():
    assert class_conditional_noise_bound(2.0, ASYMMETRIC) == pytest.approx(2 * (0.6 + 0.7 + 1) / 3)
    priors = torch.tensor([0.5, 0.3, 0.2])
    assert class_conditional_noise_bound(2.0, ASYMMETRIC, priors) == pytest.approx(2 * (0.3 + 0.21 + 0.2))
    assert oracle_class_conditional_noise_bound(ASYMMETRIC) == 0


def test_oracle_bounds():
    c, eta = 10, 0.4
    high, low = oracle_symmetric_noise_bounds(eta, c)
    assert high == pytest.approx(eta / (c - 1))
    assert low == pytest.approx(-eta / (c - 1 - c * eta + eta))
    # Fig. 3: below the bound of the plain loss, whose coefficient grows with the number of classes
    assert symmetric_noise_bounds(gce_spread(c, 0.5), eta, c)[0] > high


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("name", ["mae", "rce", "gce", "js", "polysoft"])
def test_gaps_lie_within_theorem_1(name, eta):
    c = 4
    loss, spread = {
        "mae": (mae_loss, 0.0),
        "rce": (rce_loss, 0.0),
        "gce": (lambda u, y: gce_loss(u, y, 0.4), gce_spread(c, 0.4)),
        "js": (lambda u, y: js_loss(u, y, 0.3), js_spread(c, 0.3)),
        "polysoft": (lambda u, y: polysoft_loss(u, y, 3.0, 2.0), polysoft_spread(c, 3.0, 2.0)),
    }[name]
    noisy, clean = gaps(loss, symmetric_transition(c, eta))
    high, low = symmetric_noise_bounds(spread, eta, c)
    assert -1e-9 <= noisy <= high + 1e-9
    assert low - 1e-9 <= clean <= 1e-9
    if name in ("mae", "rce"):
        assert noisy == 0


def test_printed_bound_of_polysoft_is_too_small():
    lam, d, eta, c = math.log(5), 20.0, 0.79, 5
    printed = c * (d - 1) * eta / (d * (c - 1)) * (lam - math.log(c))
    noisy, _ = gaps(lambda u, y: polysoft_loss(u, y, lam, d), symmetric_transition(c, eta))
    assert printed == 0
    assert 0.02 < noisy <= symmetric_noise_bounds(polysoft_spread(c, lam, d), eta, c)[0]


def test_cross_entropy_is_not_tolerant_and_its_minimiser_is_found():
    c, eta = 4, 0.3
    T = symmetric_transition(c, eta)
    noisy, _ = noise_gaps(cross_entropy, T, samples=2, steps=200)
    # the minimiser of the noisy cross-entropy is the row of T itself
    entropy = -(T[0] * T[0].log()).sum().item()
    certain = eta * 60
    np.testing.assert_allclose(noisy.numpy(), certain - entropy, atol=1e-3)


def test_gaps_lie_within_theorem_2():
    for loss, spread in (
        (lambda u, y: gce_loss(u, y, 0.4), gce_spread(3, 0.4)),
        (lambda u, y: js_loss(u, y, 0.3), js_spread(3, 0.3)),
        (lambda u, y: polysoft_loss(u, y, 3.0, 2.0), polysoft_spread(3, 3.0, 2.0)),
        (rce_loss, rce_spread()),
    ):
        noisy, _ = gaps(loss, ASYMMETRIC)
        assert -1e-9 <= noisy <= class_conditional_noise_bound(spread, ASYMMETRIC) + 1e-9


@pytest.mark.parametrize("eta", [0.2, 0.6])
def test_oracle_hyperparameters_lie_within_theorems_3_and_4(eta):
    c = 4
    high, low = oracle_symmetric_noise_bounds(eta, c)
    for noisy_loss in (mae_loss, constant):
        noisy, clean = gaps(cross_entropy, symmetric_transition(c, eta), noisy_loss)
        assert -1e-9 <= noisy <= high + 1e-9
        assert low - 1e-9 <= clean <= 1e-9
        noisy, _ = gaps(cross_entropy, ASYMMETRIC, noisy_loss)
        assert noisy == pytest.approx(oracle_class_conditional_noise_bound(ASYMMETRIC), abs=1e-9)


def test_condition_of_theorem_2_is_needed():
    # where class 0 mostly becomes class 1, even a symmetric loss follows the noise
    T = torch.tensor([[0.3, 0.7], [0.0, 1.0]], dtype=torch.float64)
    noisy, _ = noise_gaps(mae_loss, T, samples=10)
    np.testing.assert_allclose(noisy.numpy(), [0.4, 0.0], atol=1e-9)
    for call in (lambda: class_conditional_noise_bound(1.0, T), lambda: oracle_class_conditional_noise_bound(T)):
        with pytest.raises(ValueError, match=r"class 0 into another class with probability 0\.7"):
            call()


def test_bad_input():
    with pytest.raises(ValueError, match=r"eta=0\.95"):
        symmetric_noise_bounds(1.0, 0.95, 10)
    with pytest.raises(ValueError, match="lam=0"):
        polysoft_spread(10, 0.0, 2.0)
    with pytest.raises(ValueError, match="q=0"):
        gce_spread(10, 0.0)
    with pytest.raises(ValueError, match="num_classes=1"):
        gce_spread(1, 0.5)
    with pytest.raises(ValueError, match="probabilities"):
        noise_gaps(mae_loss, torch.ones(3, 3))
    with pytest.raises(ValueError, match="priors"):
        class_conditional_noise_bound(1.0, ASYMMETRIC, torch.ones(2))
