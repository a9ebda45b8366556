"""Two methods for several labels a sample, and whose losses they raise."""

from functools import partial

from matplotlib.figure import Figure

from lightning_perturb.figures.papers._training import quiet, several, variation_figure, variations
from lightning_perturb.methods import LC, NTR


def draw() -> Figure:
    """Relative loss variation of positives and negatives of each class under NTR and LC, on digits [lpl Fig. 2]."""
    # the perturbation alone: a tolerance would lower the losses of all negatives
    ntr = partial(NTR, tolerance=1.0)
    with quiet():
        return variation_figure(
            variations("NTR", ntr, several, epochs=10, lr=0.5),
            variations("LC", LC, several, epochs=10, lr=0.5),
        )
