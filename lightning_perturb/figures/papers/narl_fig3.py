"""What the bounds grow with, of the robust losses and of the oracle."""

from matplotlib.figure import Figure

from lightning_perturb.figures.noise_bounds import bound_coefficients


def draw() -> Figure:
    """Coefficients of the bounds of GCE and JS by the number of classes [narl Theorems 1-4, Fig. 3]."""
    return bound_coefficients()
