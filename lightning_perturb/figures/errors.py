"""Errors of two classes and of both by the size of a perturbation [lpl Figs. 3-6]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

from lightning_perturb.figures.style import COLORS, LINES, panels

Errors = Callable[[float], tuple[float, float]]


def error_curves(
    errors: Errors,
    gamma: float,
    xlabel: str,
    highest: float,
    simulated: Callable[[float, torch.Generator], tuple[float, float]] | None = None,
    points: int = 7,
) -> Figure:
    """The errors of the classes -1 and +1 (left) and the total error (right) by rho.

    Args:
        errors: Gives the errors of the classes -1 and +1 at a rho.
        gamma: How many times as common the class -1 is.
        xlabel: Which rho it is.
        highest: Largest rho.
        simulated: Gives the errors found on samples, drawn as points; None draws none.
        points: How many rho are simulated.
    """
    rho = np.linspace(0.0, highest, 201)
    minus, plus = np.array([errors(float(r)) for r in rho]).T
    figure, (left, right) = panels(2, xlabel, "natural error")
    curves = ((left, "class −1", minus), (left, "class +1", plus), (right, "total", _total(minus, plus, gamma)))
    for number, (axes, name, values) in enumerate(curves):
        axes.plot(rho, values, label=name, linewidth=1.8, color=COLORS[number], linestyle=LINES[number])
    if simulated is not None:
        generator = torch.Generator().manual_seed(0)
        at = np.linspace(0.0, highest, points)
        minus, plus = np.array([simulated(float(r), generator) for r in at]).T
        found = ((left, minus), (left, plus), (right, _total(minus, plus, gamma)))
        for number, (axes, values) in enumerate(found):
            axes.plot(at, values, "o", markersize=4, color=COLORS[number])
        for axes in (left, right):
            # one entry for the points of all colours
            axes.plot([], [], "o", markersize=4, color="#555555", label="simulated")
    for axes in (left, right):
        axes.set_xlim(-0.02 * highest, 1.02 * highest)
        # room for the legend, and no drama where an error hardly changes
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, 0.02) * 0.6
        axes.set_ylim(max(middle - half, 0.0), middle + half)
        axes.legend(frameon=False, fontsize="small")
    return figure


def _total(minus: np.ndarray, plus: np.ndarray, gamma: float) -> np.ndarray:
    total: np.ndarray = (gamma * minus + plus) / (1 + gamma)
    return total
