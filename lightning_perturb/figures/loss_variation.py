"""How far methods move the loss of each class [lpl Figs. 1, 2, 11; tax Fig. 2]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_perturb.figures.classes import by_frequency, class_bars, class_labels, in_percent
from lightning_perturb.figures.style import COLORS, line, panels, plot

_QUANTITY = "relative loss variation"
_RAISED, _LOWERED = COLORS[1], COLORS[0]


@dataclass(frozen=True)
class ClassVariation:
    """One plot: (l' - l) / l of each class.

    Attributes:
        values: One a class ``[C]``; NaN for a class that was not seen, which is left out.
        counts: Samples of each class ``[C]``, for the order; classes of equal counts stand by their ids.
        title: What stands above the plot.
        names: Names of the classes; None takes their ids. Not drawn beyond 30 classes.
    """

    values: npt.NDArray[np.floating[Any]]
    counts: npt.NDArray[np.integer[Any]]
    title: str = ""
    names: Sequence[str] | None = None


def loss_variation_by_class(*variations: ClassVariation) -> Figure:
    """The relative loss variation of each class, the most frequent class first [lpl Figs. 1, 2, 11; tax Fig. 2].

    Args:
        *variations: What the plots show, at least one; two plots stand in a row.

    Raises:
        ValueError: If there are none, the lengths of one differ, or none of its values is a number.
    """
    if not variations:
        raise ValueError("There is no variation to draw. Give at least one.")
    figure, plots = panels(len(variations), "", _QUANTITY, height=3.1, columns=2)
    for axes, variation in zip(plots, variations, strict=True):
        values, labels = variation.values, class_labels(len(variation.values), variation.names)
        if not len(values) == len(variation.counts) == len(labels):
            raise ValueError(
                f"{len(values)} values, {len(variation.counts)} counts and {len(labels)} names of the variation "
                f"{variation.title!r} must be one a class."
            )
        order = by_frequency(values, variation.counts)
        if not order:
            raise ValueError(
                f"values of the variation {variation.title!r} hold no numbers. Methods tell them after their warm-up."
            )
        drawn = values[order]
        alike = len(set(variation.counts[order].tolist())) == 1
        axes.set_xlabel("class" if alike else "class, the most frequent first")
        class_bars(axes, drawn, [labels[c] for c in order], np.where(drawn > 0, _RAISED, _LOWERED).tolist())
        axes.axhline(0, color="#444444", linewidth=0.8)
        # what hardly moves must not look like a mountain range of rounding errors
        low, high = min(float(drawn.min()), 0.0), max(float(drawn.max()), 0.0)
        room = 0.06 * max(high - low, 0.01)
        axes.set_ylim(low - room if low < 0 else -0.2 * room, high + room if high > 0 else 0.2 * room)
        in_percent(axes)
        if variation.title:
            axes.set_title(variation.title, fontsize="medium")
    return figure


def loss_variation_over_epochs(curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Figure:
    """The relative loss variation by epoch, such as that of frequent and of rare classes.

    Args:
        curves: Epochs, counted from 0, and variations of each group.

    Raises:
        ValueError: If there are no curves, or epochs and variations of one differ in number.
    """
    if not curves:
        raise ValueError("curves={} is empty. Give epochs and variations of at least one group.")
    figure, axes = plot("epoch", _QUANTITY)
    axes.axhline(0, color="#444444", linewidth=0.8)
    for number, (name, (epochs, values)) in enumerate(curves.items()):
        x, y = np.asarray(epochs), np.asarray(values)
        if x.shape != y.shape:
            raise ValueError(f"The group {name!r} has {x.size} epochs and {y.size} variations. Give one an epoch.")
        # people count epochs from 1
        axes.plot(x + 1, y, label=name, marker="o" if x.size == 1 else None, linewidth=1.6, **line(number))
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    in_percent(axes)
    if len(curves) > 1:
        # beside the plot, where it covers no curve
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
