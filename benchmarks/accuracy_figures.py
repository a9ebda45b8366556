"""Plots of the results of a grid: by epoch, and by the value of a hyperparameter that was searched."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from accuracy_grid import slug
from accuracy_tables import Results, axis, last, settings_of

# fewer values are no curve
_LEAST = 3


def draw(read: Results, folder: Path) -> dict[str, Path]:
    """Draws all plots of a grid.

    Returns:
        The files by what they show.
    """
    return {**by_epoch(read, folder), **by_value(read, folder)}


def by_epoch(read: Results, folder: Path) -> dict[str, Path]:
    """The test accuracy by epoch, the mean over seeds; a file for each column that has results."""
    from lightning_perturb.figures import accuracy_curves, save

    files = {}
    for column in read.grid.columns:
        lines = []
        for row in read.grid.rows:
            curves = read.curves(row, column, read.grid.metrics[0])
            epochs = [epoch for epoch, value in enumerate(curves[0]) if value is not None] if curves else []
            if epochs:
                lines.append((row, epochs, [_mean(curve[epoch] for curve in curves) for epoch in epochs]))
        if lines:
            figure = accuracy_curves(lines, axis(read.grid))
            # every row of the legend takes some height
            figure.set_size_inches(8, max(4.5, 0.6 + 0.18 * len(lines)))
            axes = figure.axes[0]
            axes.set_title(column)
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
            files[f"{column}: {axis(read.grid)} by epoch"] = save(figure, folder / f"accuracy-{slug(column)}.png")
    return files


def by_value(read: Results, folder: Path) -> dict[str, Path]:
    """The test accuracy after the last epoch by a hyperparameter; a file for each method that searches one alone."""
    from lightning_perturb.figures import accuracy_by_value, save

    files = {}
    for method, settings in settings_of(read.grid).items():
        names = {name for run in settings.values() for name in run.setting}
        values = {row: value for row, run in settings.items() for value in run.setting.values()}
        if len(names) != 1 or len(values) < _LEAST or not all(_is_number(value) for value in values.values()):
            continue
        (name,) = names
        lines = []
        for column in read.grid.columns:
            found = {values[row]: [last(c) for c in read.curves(row, column, read.grid.metrics[0])] for row in values}
            known = sorted((value, numbers) for value, numbers in found.items() if numbers)
            if known:
                spread = [statistics.stdev(n) if len(n) > 1 else 0.0 for _, n in known]
                lines.append((column, [v for v, _ in known], [statistics.fmean(n) for _, n in known], spread))
        if lines:
            figure = accuracy_by_value(lines, name, axis(read.grid))
            figure.axes[0].set_title(method)
            shown = f"{method}: {axis(read.grid)} by {name}"
            files[shown] = save(figure, folder / f"accuracy-{slug(method)}-by-{slug(name)}.png")
    return files


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mean(values: Iterable[float | None]) -> float:
    return statistics.fmean(value for value in values if value is not None)
