"""For which imbalance the conclusions of [lpl Corollaries 1 and 3] hold.

In all three corollaries the class whose loss is raised more errs less, and the other one more. Corollary 2 holds for
every Gamma from 1 on; the others ask for a Gamma in a range.
"""

from __future__ import annotations

import math

from lightning_perturb.checks import check_positive


def imbalance_gamma_limit(
    rho_plus: float | None = None, d: int = 2, eta: float = 1.0, eps: float = 0.2, sigma: float = 1.0
) -> float:
    """The Gamma below which a larger rho_+ lowers the error of the rare class [lpl Corollary 1, 47, 48].

    Args:
        rho_plus: rho_+, at least 0; None takes the theorem's largest, eta / epsilon, as the corollary does.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        eps: epsilon, at least 0.
        sigma: The standard deviation of both classes, above 0.

    Returns:
        The limit, at least 1; ``inf`` where it is too large for a float.

    Raises:
        ValueError: If a number is outside its range or the classes are perturbed beyond each other's mean.
    """
    shift = eta if rho_plus is None else rho_plus * eps
    gap = _gap(eps + shift, d, eta, sigma)
    return _exp(gap * gap / (2 * d * sigma * sigma))


def variance_imbalance_gamma_range(
    rho_plus: float = 0.0,
    rho_minus: float = 1.0,
    K: float = 3.0,
    d: int = 2,
    eta: float = 1.0,
    eps: float = 0.1,
    sigma: float = 1.0,
) -> tuple[float, float]:
    """Between which Gamma a larger rho lowers the error of its own class and raises the other's [lpl Corollary 3].

    Below the first limit a larger rho_- raises the error of the class -1, from the second on a larger rho_+ that of
    the class +1. Without perturbation the class +1 is the harder one from Gamma = K on, which lies between.

    The second limit at rho_+ = 0 and rho_- = 1 is the printed lower limit of the corollary's first case, which must be
    its upper one: with w = 1, b* grows with rho_+ if and only if Gamma is below it, and the error of +1 falls where b*
    grows (the printed condition makes [lpl 54] negative). The setting of Fig. 5 has Gamma = 3.5, outside the printed
    range 4.58 to 4.95 and inside this one, and shows what the corollary concludes.

    Args:
        rho_plus: rho_+, at least 0.
        rho_minus: rho_-, at least 0.
        K: How many times as wide the class -1 is, above 1.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        eps: epsilon, at least 0.
        sigma: The standard deviation of the class +1, above 0.

    Returns:
        The lower limit, at most K, and the upper limit, at least K; ``inf`` where it is too large for a float.

    Raises:
        ValueError: If a number is outside its range or the classes are perturbed beyond each other's mean.
    """
    gap = _gap((rho_plus + rho_minus) * eps, d, eta, sigma)
    if not 1 < K < math.inf:
        raise ValueError(f"K={K!r} must be finite and above 1.")
    exponent = gap * gap / (2 * d * sigma * sigma)
    return K * math.exp(-exponent), K * _exp(exponent / (K * K))


def _gap(shift: float, d: int, eta: float, sigma: float) -> float:
    """How far apart the class means are on w^T x once both are perturbed."""
    for name, value in (("d", d), ("eta", eta), ("sigma", sigma)):
        check_positive(name, value)
    gap = 2 * d * eta - shift
    if not gap > 0:
        raise ValueError(f"The perturbations move the class means past each other by {-gap:g}. Lower eps or rho.")
    return gap


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
