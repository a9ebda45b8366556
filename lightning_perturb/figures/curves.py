"""A metric by epoch, several runs in one plot [tax Fig. 8]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_perturb.figures.classes import in_percent
from lightning_perturb.figures.style import line, plot

Run = tuple[str, npt.ArrayLike, npt.ArrayLike]


def accuracy_curves(runs: Sequence[Run], ylabel: str = "test accuracy") -> Figure:
    """Accuracy by epoch of several runs [tax Fig. 8].

    Args:
        runs: ``(name, epochs, values)`` of each run: epochs counted from 0 ``[n]``, shares in 0..1 ``[n]``, as
            :func:`read_metric` gives them. At least one.
        ylabel: What the values are.

    Raises:
        ValueError: If there are no runs, or epochs and values of one differ in number.
    """
    if not runs:
        raise ValueError("runs=[] is empty. Give (name, epochs, values) of at least one run.")
    figure, axes = plot("epoch", ylabel)
    for number, (name, epochs, values) in enumerate(runs):
        x, y = np.asarray(epochs), np.asarray(values)
        if x.shape != y.shape:
            raise ValueError(f"The run {name!r} has {x.size} epochs and {y.size} values. Give one value an epoch.")
        # people count epochs from 1
        axes.plot(x + 1, y, label=name, marker="o" if x.size == 1 else None, linewidth=1.6, **line(number))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    in_percent(axes)
    axes.legend(frameon=False, fontsize="small")
    return figure
