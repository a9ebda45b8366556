"""How large the perturbations are [tax Fig. 7]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lightning_perturb.figures.groups import groups
from lightning_perturb.figures.style import plot


def perturbation_distribution(
    norms: npt.NDArray[np.floating[Any]], noisy: npt.NDArray[np.bool_] | None = None, bins: int = 40
) -> Figure:
    """The distribution of the perturbation's norm over samples, of clean and noisy ones apart [tax Fig. 7].

    Args:
        norms: Norm of each sample's perturbation ``[N]``; samples with NaN are left out.
        noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.
        bins: Number of bins.

    Raises:
        ValueError: If no norm is a number.
    """
    known = ~np.isnan(norms)
    if not known.any():
        raise ValueError("norms hold no numbers. Only methods that perturb tell a norm, after their warm-up epochs.")
    values = norms.astype(np.float64)
    highest = float(values[known].max())
    edges = np.linspace(0.0, highest if highest > 0 else 1.0, bins + 1)
    figure, axes = plot("mean $\\ell_1$ norm of the perturbation", "share of the group's samples")
    for group in groups(known, noisy):
        shares = np.histogram(values[group.members], edges)[0] / max(int(group.members.sum()), 1)
        axes.stairs(shares, edges, fill=True, alpha=0.25, color=group.color)
        axes.stairs(shares, edges, color=group.color, linewidth=1.5, label=group.label)
    axes.set_xlim(0, 1.02 * edges[-1])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure
