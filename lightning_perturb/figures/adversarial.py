"""Which samples are perturbed adversarially, by class and over training [iada Figs. 3, 4]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lightning_perturb.figures.style import COLORS, line, plot

# beyond this number of classes names cannot be read
_NAMED = 30


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
    labels = [str(c) for c in range(len(shares))] if names is None else list(names)
    if not len(shares) == len(counts) == len(labels):
        raise ValueError(f"{len(shares)} shares, {len(counts)} counts and {len(labels)} names must be one a class.")
    order = [c for c in np.argsort(-counts, kind="stable") if not np.isnan(shares[c])]
    if not order:
        raise ValueError("shares hold no numbers. Only methods with adversarial samples tell them, after warm-up.")
    named = len(order) <= _NAMED
    figure, axes = plot("class, the most frequent first", "share of adversarial samples")
    places = np.arange(len(order))
    axes.bar(places, shares[order], color=COLORS[0], width=0.8 if named else 1.0)
    if named:
        long = max(len(labels[c]) for c in order) > 3
        axes.set_xticks(
            places, [labels[c] for c in order], rotation=45 if long else 0, ha="right" if long else "center"
        )
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
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
