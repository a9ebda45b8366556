"""What class-level logit perturbation does to two Gaussian classes: the errors of [lpl Theorems 1-3].

The classes +1 and -1 are N(theta, sigma_+^2 I) and N(-theta, sigma_-^2 I) with theta = (eta, ..., eta) in d
dimensions and priors 1 : Gamma [lpl 16, 17]. A linear classifier is optimal for logits that are perturbed by at most
rho_+ epsilon and rho_- epsilon; the theorems give its errors on unperturbed samples.

Its weights are w = 1, as in the proofs [lpl 42]. That is a constraint, not a result: perturbed logits w^T x + b have no
scale of their own, and where w may grow a bounded perturbation is lost in them.
"""

from __future__ import annotations

import math

from lightning_perturb.checks import check_positive


def imbalance_errors(
    rho_plus: float, gamma: float = 2.0, d: int = 2, eta: float = 1.0, eps: float = 0.2, sigma: float = 1.0
) -> tuple[float, float]:
    """Both losses raised, the rare class's by rho_+ epsilon, the common one's by epsilon [lpl Theorem 1, Fig. 3].

    A larger rho_+ lowers the error of the rare class and raises that of the common one [lpl Corollary 1].

    Args:
        rho_plus: rho_+, at least 0.
        gamma: Gamma, how many times as common the class -1 is, above 0.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        eps: epsilon, at least 0.
        sigma: The standard deviation of both classes, above 0.

    Returns:
        The errors of the classes -1 and +1 [lpl 21].

    Raises:
        ValueError: If a number is outside its range or a class is perturbed beyond the other's mean.
    """
    return _equal_variances(eps, rho_plus * eps, gamma, d, eta, sigma)


def mixed_imbalance_errors(
    rho_minus: float, gamma: float = 2.0, d: int = 2, eta: float = 1.0, eps: float = 0.2, sigma: float = 1.0
) -> tuple[float, float]:
    """The rare class's loss raised by epsilon, the common one's lowered by rho_- epsilon [lpl Theorem 2, Fig. 4].

    A larger rho_- lowers the error of the rare class and raises that of the common one [lpl Corollary 2].

    Args:
        rho_minus: rho_-, at least 0.
        gamma: Gamma, how many times as common the class -1 is, above 0.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        eps: epsilon, at least 0.
        sigma: The standard deviation of both classes, above 0.

    Returns:
        The errors of the classes -1 and +1 [lpl 23].

    Raises:
        ValueError: If a number is outside its range or a class is perturbed beyond the other's mean.
    """
    return _equal_variances(-rho_minus * eps, eps, gamma, d, eta, sigma)


def variance_imbalance_errors(
    rho_plus: float,
    rho_minus: float,
    K: float = 3.0,
    gamma: float = 3.5,
    d: int = 2,
    eta: float = 1.0,
    eps: float = 0.1,
    sigma: float = 1.0,
) -> tuple[float, float]:
    """Both losses raised where the variances differ as well, sigma_+ : sigma_- = 1 : K [lpl Theorem 3, Figs. 5, 6].

    The theorem's threshold is the local minimum of the error. With unequal variances it need not be the global one:
    in the setting of Fig. 5 the classifier that always says -1 errs less (.222 against .250 of the perturbed samples
    at rho_+ = rho_- = 1).

    Args:
        rho_plus: rho_+, at least 0.
        rho_minus: rho_-, at least 0.
        K: How many times as wide the class -1 is, above 1.
        gamma: Gamma, how many times as common the class -1 is, above 0.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        eps: epsilon, at least 0.
        sigma: The standard deviation of the class +1, above 0.

    Returns:
        The errors of the classes -1 and +1 [lpl 25].

    Raises:
        ValueError: If a number is outside its range, a class is perturbed beyond the other's mean, or Gamma is so
            large that the error has no minimum.
    """
    plus, minus = rho_plus * eps, rho_minus * eps
    _check(plus, minus, gamma, d, eta, sigma)
    if not 1 < K < math.inf:
        raise ValueError(f"K={K!r} must be finite and above 1.")
    spread = math.sqrt(d) * sigma
    B = (plus + minus - 2 * d * eta) / (spread * (K * K - 1))
    q = 2 * math.log(K / gamma) / (K * K - 1)
    if B * B + q < 0:
        raise ValueError(f"gamma={gamma!r} is so large that no threshold is better than always the class -1. Lower it.")
    root = math.sqrt(B * B + q)
    return _normal(K * B + root - minus / (K * spread)), _normal(-K * root - B - plus / spread)


def _equal_variances(minus: float, plus: float, gamma: float, d: int, eta: float, sigma: float) -> tuple[float, float]:
    """Theorems 1 and 2 in one: signed shifts of both classes towards the boundary."""
    _check(plus, minus, gamma, d, eta, sigma)
    spread = math.sqrt(d) * sigma
    A = (minus + plus - 2 * d * eta) / spread
    ratio = math.log(gamma) / A
    return _normal(A / 2 + ratio - minus / spread), _normal(A / 2 - ratio - plus / spread)


def _normal(x: float) -> float:
    """Pr(N(0, 1) < x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _check(plus: float, minus: float, gamma: float, d: int, eta: float, sigma: float) -> None:
    for name, value in (("gamma", gamma), ("d", d), ("eta", eta), ("sigma", sigma)):
        check_positive(name, value)
    if not plus + minus < 2 * d * eta:
        raise ValueError(
            f"The perturbations {plus:g} and {minus:g} move the class means past each other (2 d eta = "
            f"{2 * d * eta:g}). Lower eps or rho."
        )
