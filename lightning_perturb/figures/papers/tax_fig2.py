"""Logit adjustment, which lowers the losses of the head and raises those of the tail."""

from matplotlib.figure import Figure

from lightning_perturb.figures.papers._training import long_tail, quiet, variation_figure, variations
from lightning_perturb.methods import LogitAdjustment


def draw() -> Figure:
    """Relative loss variation of each class under logit adjustment, on long-tailed digits [tax Fig. 2]."""
    with quiet():
        return variation_figure(variations("LA, long tail", LogitAdjustment, long_tail, epochs=30))
