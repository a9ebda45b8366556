"""The rare class's loss raised, the common one's lowered more and more."""

from matplotlib.figure import Figure

from lightning_perturb.figures.errors import error_curves
from lightning_perturb.functional import mixed_imbalance_errors, simulated_errors


def draw() -> Figure:
    """Errors by rho_- where class imbalance is met by lowering the common class's loss [lpl Theorem 2, Fig. 4]."""
    gamma, eps = 2.0, 0.2
    return error_curves(
        lambda rho: mixed_imbalance_errors(rho, gamma, eps=eps),
        gamma,
        r"$\rho_-$",
        4.0,
        lambda rho, generator: simulated_errors(-rho * eps, eps, gamma, generator=generator),
    )
