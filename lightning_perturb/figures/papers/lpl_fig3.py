"""Both losses raised, the rare class's more and more."""

from matplotlib.figure import Figure

from lightning_perturb.figures.errors import error_curves
from lightning_perturb.functional import imbalance_errors, simulated_errors


def draw() -> Figure:
    """Errors by rho_+ where class imbalance is met by raising both losses [lpl Theorem 1, Fig. 3]."""
    gamma, eps = 2.0, 0.2
    return error_curves(
        lambda rho: imbalance_errors(rho, gamma, eps=eps),
        gamma,
        r"$\rho_+$",
        4.0,
        lambda rho, generator: simulated_errors(eps, rho * eps, gamma, generator=generator),
    )
