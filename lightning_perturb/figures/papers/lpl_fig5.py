"""Classes of unequal width, of which imbalance makes the narrow one the harder."""

from matplotlib.figure import Figure

from lightning_perturb.figures.errors import error_curves
from lightning_perturb.functional import simulated_errors, variance_imbalance_errors


def draw() -> Figure:
    """Errors by rho_+ where class imbalance outweighs variance imbalance [lpl Theorem 3, Fig. 5]."""
    K, gamma, eps = 3.0, 3.5, 0.1
    return error_curves(
        lambda rho: variance_imbalance_errors(rho, 1.0, K, gamma, eps=eps),
        gamma,
        r"$\rho_+$",
        9.0,
        lambda rho, generator: simulated_errors(eps, rho * eps, gamma, K=K, generator=generator),
    )
