import math

import pytest

from lightning_perturb.functional import (
    imbalance_errors,
    imbalance_gamma_limit,
    mixed_imbalance_errors,
    variance_imbalance_errors,
    variance_imbalance_gamma_range,
)


def change(errors, at, step=1e-4):
    """How the errors of the classes -1 and +1 change with a rho, by finite differences."""
    return [(b - a) / step for a, b in zip(errors(at), errors(at + step), strict=True)]


@pytest.mark.parametrize("rho", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("sigma", [1.0, 1.4])
def test_corollary_1_turns_at_the_limit(rho, sigma):
    limit = imbalance_gamma_limit(rho, sigma=sigma)
    for gamma, sign in ((0.9 * limit, 1), (1.1 * limit, -1)):
        minus, plus = change(lambda r, g=gamma: imbalance_errors(r, g, sigma=sigma), rho)
        assert minus * sign > 0
        assert plus * sign < 0


def test_corollary_1_as_printed():
    assert imbalance_gamma_limit(d=3, eta=0.8, eps=0.1, sigma=1.2) == pytest.approx(
        math.exp((5 * 0.8 - 0.1) ** 2 / (2 * 3 * 1.2**2))
    )
    # Fig. 3 fulfils it up to the theorem's largest rho_+
    assert imbalance_gamma_limit() > 2
    assert imbalance_gamma_limit(5.0) == imbalance_gamma_limit()


@pytest.mark.parametrize("gamma", [1.0, 2.0, 10.0])
def test_corollary_2(gamma):
    minus, plus = change(lambda r: mixed_imbalance_errors(r, gamma), 1.0)
    assert minus > 0 > plus


@pytest.mark.parametrize(("plus", "minus"), [(0.0, 1.0), (1.0, 1.0), (3.0, 0.5)])
@pytest.mark.parametrize(("K", "eps"), [(3.0, 0.1), (2.5, 0.2)])
def test_corollary_3_turns_at_the_limits(plus, minus, K, eps):
    low, high = variance_imbalance_gamma_range(plus, minus, K, eps=eps)
    assert low < K < high

    def by_plus(gamma):
        return change(lambda r: variance_imbalance_errors(r, minus, K, gamma, eps=eps), plus)

    def by_minus(gamma):
        return change(lambda r: variance_imbalance_errors(plus, r, K, gamma, eps=eps), minus)

    for gamma in (1.05 * low, K, 0.99 * high):
        first, second = by_plus(gamma)
        assert first > 0 > second
        first, second = by_minus(gamma)
        assert first < 0 < second
    first, second = by_plus(1.01 * high)
    assert first < 0 < second
    first, second = by_minus(0.95 * low)
    assert first > 0 > second


def test_corollary_3_printed_range_is_reversed():
    printed = 3 * math.exp((2 * 2 - 0.1) ** 2 / (2 * 2 * 3**2))
    assert variance_imbalance_gamma_range()[1] == pytest.approx(printed)
    assert printed == pytest.approx(4.58, abs=5e-3)
    # inside the printed range, at whose upper end the error loses its minimum, a larger rho_+ harms its class
    assert 3 * math.exp(2 * 2 / (3**2 - 1)) == pytest.approx(4.95, abs=5e-3)
    minus, plus = change(lambda r: variance_imbalance_errors(r, 1.0, gamma=4.6), 0.0)
    assert minus < 0 < plus
    # Fig. 5 lies outside of it and shows the conclusion
    minus, plus = change(lambda r: variance_imbalance_errors(r, 1.0, gamma=3.5), 0.0)
    assert minus > 0 > plus


@pytest.mark.parametrize(("K", "gamma"), [(3.0, 2.9), (3.0, 3.1), (2.5, 1.1)])
def test_the_harder_class_changes_at_gamma_k(K, gamma):
    minus, plus = variance_imbalance_errors(0.0, 0.0, K, gamma)
    assert (plus > minus) == (gamma > K)


def test_limits_beyond_floats_and_bad_input():
    assert imbalance_gamma_limit(eta=100.0, sigma=0.1) == math.inf
    assert variance_imbalance_gamma_range(eta=100.0, sigma=0.01) == (0.0, math.inf)
    with pytest.raises(ValueError, match="past each other by 4"):
        imbalance_gamma_limit(39.0)
    with pytest.raises(ValueError, match="K=1"):
        variance_imbalance_gamma_range(K=1.0)
    with pytest.raises(ValueError, match="sigma=0"):
        imbalance_gamma_limit(sigma=0)
