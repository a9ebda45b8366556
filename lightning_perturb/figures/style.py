"""How every figure here looks; made without pyplot, so that no window and no global state is touched."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: told apart also by the colour-blind (Okabe and Ito)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: a second sign beside the colour, and more lines than colours
LINES = ("-", "--", "-.", ":")


def blank(width: float, height: float) -> Figure:
    """An empty figure of a size in inches that can be drawn and saved."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot(xlabel: str, ylabel: str, width: float = 5.6, height: float = 3.6) -> tuple[Figure, Axes]:
    """A figure with one plot and labelled axes."""
    figure, (axes,) = panels(1, xlabel, ylabel, width, height)
    return figure, axes


def panels(
    number: int,
    xlabel: str,
    ylabel: str,
    width: float | None = None,
    height: float = 3.6,
    columns: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure with plots side by side, the label of the y axis on the first of a row.

    Args:
        number: How many plots.
        xlabel: Label of the x axes; in several rows only of each column's last.
        ylabel: Label of the y axes.
        width: Width in inches; None takes one for the number of columns.
        height: Height of a row in inches.
        columns: Plots in a row; None puts all into one.
    """
    columns = min(columns or number, number)
    rows = -(-number // columns)
    figure = blank(width or (5.6 if columns == 1 else 1.0 + 3.0 * columns), height * rows)
    plots: list[Axes] = []
    for place in range(number):
        axes: Axes = figure.add_subplot(rows, columns, place + 1)
        axes.set_xlabel("" if place + columns < number else xlabel)
        axes.set_ylabel("" if place % columns else ylabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        plots.append(axes)
    return figure, plots


def mark(axes: Axes, x: float, name: str) -> None:
    """A thin vertical line at a value, with its name at the top."""
    axes.axvline(x, color="#888888", linewidth=0.8, linestyle=":")
    place = axes.get_xaxis_transform()
    axes.annotate(
        name,
        (x, 0.94),
        xycoords=place,
        xytext=(4, 0),
        textcoords="offset points",
        fontsize="small",
        color="#555555",
    )


def line(number: int) -> dict[str, Any]:
    """Colour and dashes of a plot's line by its number."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": LINES[number // len(COLORS) % len(LINES)]}
