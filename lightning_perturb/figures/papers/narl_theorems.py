"""The bounds themselves."""

from matplotlib.figure import Figure

from lightning_perturb.figures.noise_bounds import bounds_by_noise_rate


def draw() -> Figure:
    """Bounds of each robust loss and of the oracle by the noise rate [narl Theorems 1-4]."""
    return bounds_by_noise_rate()
