import math

import numpy as np
import pytest

from lightning_perturb.functional import imbalance_errors, mixed_imbalance_errors, variance_imbalance_errors


def phi(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.atleast_1d(x)])


def by_search(shift_minus, shift_plus, gamma, d, eta, sigma_minus, sigma_plus):
    """The errors at the threshold on the sum of the coordinates where the error on perturbed classes has a minimum.

    Also the share of perturbed samples that it gets wrong.
    """
    root = math.sqrt(d)
    t = np.linspace(-6 * d * eta, 6 * d * eta, 60001)

    def errors(minus, plus, t):
        return 1 - phi((t - minus) / (root * sigma_minus)), phi((t - plus) / (root * sigma_plus))

    minus, plus = errors(-d * eta + shift_minus, d * eta - shift_plus, t)
    total = (gamma * minus + plus) / (1 + gamma)
    (minimum,) = 1 + np.flatnonzero((total[1:-1] < total[:-2]) & (total[1:-1] < total[2:]))
    minus, plus = errors(-d * eta, d * eta, t[minimum])
    return (minus[0], plus[0]), total[minimum]


@pytest.mark.parametrize(
    ("rho", "expected"),
    [(0, (0.04068, 0.13884)), (1, (0.04585, 0.12674)), (2, (0.05136, 0.11573)), (4, (0.06315, 0.09687))],
)
def test_values_of_figure_3(rho, expected):
    assert imbalance_errors(rho) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("gamma", "d", "eta", "sigma"), [(2.0, 2, 1.0, 1.0), (5.0, 3, 0.7, 1.2)])
def test_theorems_1_and_2_by_search(gamma, d, eta, sigma):
    for rho in (0.0, 1.0, 2.0):
        found, _ = by_search(0.2, rho * 0.2, gamma, d, eta, sigma, sigma)
        assert imbalance_errors(rho, gamma, d, eta, 0.2, sigma) == pytest.approx(found, abs=1e-4)
        found, _ = by_search(-rho * 0.2, 0.2, gamma, d, eta, sigma, sigma)
        assert mixed_imbalance_errors(rho, gamma, d, eta, 0.2, sigma) == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize(("K", "gamma", "eps"), [(3.0, 3.5, 0.1), (2.5, 1.1, 0.2)])
def test_theorem_3_by_search(K, gamma, eps):
    for plus, minus in ((0.0, 1.0), (1.0, 1.0), (3.0, 0.5)):
        found, _ = by_search(minus * eps, plus * eps, gamma, 2, 1.0, K, 1.0)
        assert variance_imbalance_errors(plus, minus, K, gamma, 2, 1.0, eps) == pytest.approx(found, abs=1e-4)


def test_theorem_3_is_not_the_best_classifier_in_figure_5():
    _, share = by_search(0.1, 0.1, 3.5, 2, 1.0, 3.0, 1.0)
    assert share == pytest.approx(0.250, abs=1e-3)
    assert share > 1 / 4.5


def test_corollaries():
    for errors in (imbalance_errors, mixed_imbalance_errors):
        minus, plus = zip(*[errors(rho) for rho in (0, 1, 2, 3, 4)], strict=True)
        assert list(minus) == sorted(minus)
        assert list(plus) == sorted(plus, reverse=True)


def test_bad_input():
    with pytest.raises(ValueError, match="past each other"):
        imbalance_errors(40.0)
    with pytest.raises(ValueError, match="K=1"):
        variance_imbalance_errors(1.0, 1.0, K=1.0)
    with pytest.raises(ValueError, match="Lower it"):
        variance_imbalance_errors(1.0, 1.0, gamma=1e9)
    with pytest.raises(ValueError, match="gamma=0"):
        mixed_imbalance_errors(1.0, gamma=0.0)
