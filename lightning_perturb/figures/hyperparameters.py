"""Hyperparameters and weights of single samples, by margin and over training [narl Figs. 7-9]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_perturb.figures.groups import Group, groups
from lightning_perturb.figures.style import LINES, panels, plot

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

_SYMBOLS = {
    "q": "$q$",
    "gamma1": "$\\gamma_1$",
    "gamma2": "$\\gamma_2$",
    "gamma1/gamma2": "$\\gamma_1 / \\gamma_2$",
    "pi1": "$\\pi_1$",
    "lam": "$\\lambda$",
    "d": "$d$",
    "alpha": "$\\alpha$",
}
# more would only lie on top of each other
_POINTS = 20_000


def hyperparameters_by_margin(
    margins: Floats,
    values: Mapping[str, Floats],
    noisy: Bools | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Figure:
    """Each hyperparameter of each sample against the sample's margin [narl Fig. 7].

    Args:
        margins: Margin of each sample ``[N]``.
        values: Values ``[N]`` by the hyperparameter's name, at least one; samples with NaN, here or among the margins,
            are left out.
        noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.
        fixed: Values, by name, that a method without learned hyperparameters gives to all samples.

    Raises:
        ValueError: If there are no values, or no sample has them.
    """
    if not values:
        raise ValueError("values={} is empty. Give the values of at least one hyperparameter.")
    figure, plots = panels(len(values), "margin", "")
    for axes, (name, column) in zip(plots, values.items(), strict=True):
        known = ~(np.isnan(margins) | np.isnan(column))
        _check_known(name, known)
        for number, group in enumerate(groups(known, noisy)):
            shown = _thinned(group.members)
            axes.plot(
                margins[shown], column[shown], ".", markersize=2, color=group.color, label=group.label,
                alpha=0.5, rasterized=True, zorder=2 + number,
            )  # fmt: skip
        value = (fixed or {}).get(name)
        if value is not None:
            axes.axhline(value, color="#000000", linewidth=1.2, linestyle="--", label=f"fixed: {value:g}")
        axes.set_ylabel(symbol(name))
        axes.legend(frameon=False, fontsize="small", markerscale=4)
    return figure


def hyperparameter_distributions(
    name: str, values: Floats, noisy: Bools | None = None, shown: int = 4, bins: int = 40
) -> Figure:
    """How a hyperparameter, or a weight, is distributed over samples in several epochs [narl Figs. 8, 9].

    Args:
        name: Its name.
        values: Values ``[E, N]``, epochs and samples; NaN where there are none.
        noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.
        shown: Number of epochs, evenly from the first to the last that has values.
        bins: Number of bins.

    Raises:
        ValueError: If there are no values.
    """
    epochs = _epochs_with_values(name, values)
    picked = epochs[np.unique(np.linspace(0, len(epochs) - 1, shown).round().astype(int))]
    rows = {int(epoch): np.asarray(values[epoch], dtype=np.float64) for epoch in picked}
    low, high = min(np.nanmin(row) for row in rows.values()), max(np.nanmax(row) for row in rows.values())
    # one value for all samples still is a bin
    edges = np.linspace(low, high, bins + 1) if high > low else np.linspace(low - 0.5, low + 0.5, bins + 1)
    figure, plots = panels(len(rows), symbol(name), "share of the group's samples")
    for axes, (epoch, row) in zip(plots, rows.items(), strict=True):
        for group in groups(~np.isnan(row), noisy):
            shares = np.histogram(row[group.members], edges)[0] / max(int(group.members.sum()), 1)
            axes.stairs(shares, edges, fill=True, alpha=0.25, color=group.color)
            axes.stairs(shares, edges, color=group.color, linewidth=1.2, label=group.label)
        axes.set_title(f"epoch {epoch + 1}", fontsize="small")
        axes.set_ylim(bottom=0)
    plots[0].legend(frameon=False, fontsize="small")
    return figure


def values_over_epochs(name: str, values: Floats, noisy: Bools | None = None) -> Figure:
    """Median and middle 80 % of a number of each sample by epoch, of clean and noisy ones apart [narl Figs. 8, 9].

    Args:
        name: Its name.
        values: Values ``[E, N]``, epochs and samples; NaN where there are none.
        noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.

    Raises:
        ValueError: If there are no values.
    """
    figure, axes = plot("epoch", symbol(name))
    for group, epochs, rows in _by_group(name, values, noisy):
        low, middle, high = np.array([np.quantile(row, (0.1, 0.5, 0.9)) for row in rows]).T
        axes.fill_between(epochs + 1, low, high, color=group.color, alpha=0.2, linewidth=0)
        _draw_line(axes, group, epochs, middle)
    _finish(axes)
    return figure


def loss_over_epochs(losses: Floats, noisy: Bools | None = None, name: str = "") -> Figure:
    """The mean training loss by epoch, of all samples, and of clean and noisy ones [narl Fig. 10].

    Args:
        losses: Losses ``[E, N]``, epochs and samples; NaN where there are none.
        noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.
        name: Of the method, for the title.

    Raises:
        ValueError: If there are no losses.
    """
    figure, axes = plot("epoch", "training loss")
    drawn = _by_group("losses", losses, None)
    if noisy is not None and noisy.any():
        drawn += _by_group("losses", losses, noisy)
    for (group, epochs, rows), style in zip(drawn, LINES, strict=False):
        color = "#000000" if len(drawn) > 1 and group is drawn[0][0] else group.color
        means = [float(row.mean()) for row in rows]
        _draw_line(axes, Group(group.name, color, group.members), epochs, np.array(means), linestyle=style)
    axes.set_title(name, fontsize="small")
    _finish(axes)
    return figure


def symbol(name: str) -> str:
    """How a hyperparameter is written in the papers, or its name."""
    return _SYMBOLS.get(name, name)


_Part = tuple[Group, npt.NDArray[np.int64], list[npt.NDArray[np.float64]]]


def _by_group(name: str, values: Floats, noisy: Bools | None) -> list[_Part]:
    """Each group with the epochs that have values of it, and these values."""
    epochs = _epochs_with_values(name, values)
    ever = np.zeros(values.shape[1], dtype=bool)
    for epoch in epochs:
        ever |= ~np.isnan(values[epoch])
    found: list[_Part] = []
    for group in groups(ever, noisy):
        rows = {int(e): np.asarray(values[e], dtype=np.float64)[group.members] for e in epochs}
        rows = {e: row[~np.isnan(row)] for e, row in rows.items()}
        rows = {e: row for e, row in rows.items() if len(row)}
        found.append((group, np.array(list(rows), dtype=np.int64), list(rows.values())))
    return found


def _epochs_with_values(name: str, values: Floats) -> npt.NDArray[np.int64]:
    known = np.array([not np.isnan(row).all() for row in values], dtype=bool)
    _check_known(name, known)
    return np.flatnonzero(known)


def _check_known(name: str, known: Bools) -> None:
    if not known.any():
        raise ValueError(f"{name!r} has no values. Give numbers of a method that tells them, after its warm-up epochs.")


def _thinned(members: Bools) -> npt.NDArray[np.int64]:
    places = np.flatnonzero(members)
    if len(places) <= _POINTS:
        return places
    return np.random.default_rng(0).choice(places, _POINTS, replace=False)


def _draw_line(axes: Axes, group: Group, epochs: npt.NDArray[np.int64], values: Floats, **style: Any) -> None:
    # people count epochs from 1; a line of one point would not be seen
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs + 1, values, color=group.color, label=group.label, linewidth=1.6, marker=marker, **style)


def _finish(axes: Axes) -> None:
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")
