"""A metric by the value of a hyperparameter [tax Figs. 9, 10; iada Fig. 6]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lightning_perturb.figures.classes import in_percent
from lightning_perturb.figures.style import line, plot

Swept = tuple[str, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]


def accuracy_by_value(lines: Sequence[Swept], name: str, ylabel: str = "test accuracy") -> Figure:
    """Accuracy by the value of one hyperparameter, a line for each set of data [tax Figs. 9, 10; iada Fig. 6].

    Args:
        lines: ``(name, values, means, deviations)`` of each line: the hyperparameter's values in rising order ``[n]``,
            mean and standard deviation of the accuracy over seeds, as shares in 0..1 ``[n]``. At least one line.
        name: Name of the hyperparameter.
        ylabel: What the means are.

    Raises:
        ValueError: If there are no lines, or the numbers of one differ in length.
    """
    if not lines:
        raise ValueError("lines=[] is empty. Give (name, values, means, deviations) of at least one line.")
    figure, axes = plot(name, ylabel)
    for number, (label, values, means, deviations) in enumerate(lines):
        x, y, spread = (np.asarray(part, dtype=np.float64) for part in (values, means, deviations))
        if not x.shape == y.shape == spread.shape:
            raise ValueError(
                f"The line {label!r} has {x.size} values, {y.size} means and {spread.size} deviations. Give one of "
                "each a value."
            )
        axes.errorbar(
            x, y, yerr=spread, label=label, marker="o", markersize=4, linewidth=1.6, capsize=2, **line(number)
        )
    in_percent(axes)
    axes.legend(frameon=False, fontsize="small")
    return figure
