"""LPL, and whose losses it raises."""

from functools import partial

from matplotlib.figure import Figure

from lightning_perturb.figures.papers._training import (
    balanced,
    long_tail,
    quiet,
    several,
    variation_figure,
    variations,
)
from lightning_perturb.methods import LPL, MultiLabelLPL


def draw() -> Figure:
    """Relative loss variation of each class under LPL, on balanced, long-tailed, multi-label digits [lpl Fig. 11]."""
    tail = partial(LPL, split="frequency", head=0.4)
    with quiet():
        return variation_figure(
            variations("LPL, balanced", LPL, balanced, epochs=30),
            variations("LPL, long tail", tail, long_tail, epochs=30),
            variations("LPL, several labels", MultiLabelLPL, several, epochs=10, lr=0.5),
        )
