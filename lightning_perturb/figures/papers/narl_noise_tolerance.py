"""The conditions of noise tolerance, checked numerically."""

from matplotlib.figure import Figure

from lightning_perturb.figures.noise_tolerance import conditions_figure, noise_conditions


def draw() -> Figure:
    """Gaps and bounds of each loss under noise, checked numerically [narl Theorems 1-4]."""
    return conditions_figure(noise_conditions())
