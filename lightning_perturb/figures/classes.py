"""Bars of classes, the most frequent class first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

# beyond this number of classes names cannot be read
_NAMED = 30


def class_labels(classes: int, names: Sequence[str] | None) -> list[str]:
    """The names of the classes, their ids where there are none."""
    return [str(c) for c in range(classes)] if names is None else list(names)


def by_frequency(values: npt.NDArray[np.floating[Any]], counts: npt.NDArray[np.integer[Any]]) -> list[int]:
    """Class ids from the most frequent class to the rarest, without those whose value is NaN."""
    return [int(c) for c in np.argsort(-counts, kind="stable") if not np.isnan(values[c])]


def class_bars(axes: Axes, values: npt.NDArray[np.floating[Any]], labels: Sequence[str], color: Any) -> None:
    """One bar for each class, with its name where there are few classes.

    Args:
        axes: The plot.
        values: Values in the order of the bars ``[n]``.
        labels: Their names.
        color: A colour, or one for each bar.
    """
    named = len(values) <= _NAMED
    places = np.arange(len(values))
    axes.bar(places, values, color=color, width=0.8 if named else 1.0)
    if named:
        long = max(len(label) for label in labels) > 3
        axes.set_xticks(places, labels, rotation=45 if long else 0, ha="right" if long else "center")


def in_percent(axes: Axes) -> None:
    """Shares along the y axis as percentages."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g}%".replace("-", "−")))
