"""Which samples are perturbed adversarially, by class and over training [iada Figs. 3, 4]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_perturb.figures.classes import by_frequency, class_bars, class_labels, in_percent
from lightning_perturb.figures.style import COLORS, line, plot


def adversarial_by_class(
    shares: npt.NDArray[np.floating[Any]], counts: npt.NDArray[np.integer[Any]], names: Sequence[str] | None = None
) -> Figure:
    """The share of adversarial samples of each class, the most frequent class first [iada Fig. 3].

    Args:
        shares: Share of each class ``[C]``; NaN for a class that was not seen, which is left out.
        counts: Samples of each class ``[C]``, for the order.
        names: Names of the classes; None takes their ids. Not drawn beyond 30 classes.

    Raises:
        ValueError: If the lengths differ, or no share is a number.
    """
    labels = class_labels(len(shares), names)
    if not len(shares) == len(counts) == len(labels):
        raise ValueError(f"{len(shares)} shares, {len(counts)} counts and {len(labels)} names must be one a class.")
    order = by_frequency(shares, counts)
    if not order:
        raise ValueError("shares hold no numbers. Only methods with adversarial samples tell them, after warm-up.")
    figure, axes = plot("class, the most frequent first", "share of adversarial samples")
    class_bars(axes, shares[order], [labels[c] for c in order], COLORS[0])
    _shares_up(axes)
    return figure


def adversarial_over_epochs(curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Figure:
    """The share of adversarial samples by epoch, such as that of clean and of noisy ones [iada Fig. 4].

    Args:
        curves: Epochs, counted from 0, and shares of each group of samples.

    Raises:
        ValueError: If there are no curves, or epochs and shares of one differ in number.
    """
    if not curves:
        raise ValueError("curves={} is empty. Give epochs and shares of at least one group.")
    figure, axes = plot("epoch", "share of adversarial samples")
    for number, (name, (epochs, shares)) in enumerate(curves.items()):
        x, y = np.asarray(epochs), np.asarray(shares)
        if x.shape != y.shape:
            raise ValueError(f"The group {name!r} has {x.size} epochs and {y.size} shares. Give one share an epoch.")
        # people count epochs from 1
        axes.plot(x + 1, y, label=name, marker="o" if x.size == 1 else None, linewidth=1.6, **line(number))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")
    _shares_up(axes)
    return figure


def _shares_up(axes: Any) -> None:
    axes.set_ylim(0, 1.02)
    in_percent(axes)
