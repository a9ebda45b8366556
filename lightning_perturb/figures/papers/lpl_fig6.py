"""Classes of unequal width, of which the wide one is the harder."""

from matplotlib.figure import Figure

from lightning_perturb.figures.errors import error_curves
from lightning_perturb.functional import simulated_errors, variance_imbalance_errors


def draw() -> Figure:
    """Errors by rho_- where variance imbalance outweighs class imbalance [lpl Theorem 3, Fig. 6]."""
    K, gamma, eps = 2.5, 1.1, 0.2
    return error_curves(
        lambda rho: variance_imbalance_errors(1.0, rho, K, gamma, eps=eps),
        gamma,
        r"$\rho_-$",
        4.0,
        lambda rho, generator: simulated_errors(rho * eps, eps, gamma, K=K, generator=generator),
    )
