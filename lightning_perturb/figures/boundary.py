"""Samples in the plane and where a classifier decides between them [tax Fig. 3]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from lightning_perturb.figures.style import COLORS, blank

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Classifier:
    """A classifier with the samples that it learnt from.

    Attributes:
        title: Stands above its panel.
        x: Samples ``[N, 2]``.
        y: Their class ids ``[N]``.
        logits: Gives logits ``[M, C]`` at float32 points ``[M, 2]``.
    """

    title: str
    x: npt.ArrayLike
    y: npt.ArrayLike
    logits: Logits


def decision_boundaries(
    classifiers: Sequence[Classifier],
    class_names: Sequence[str],
    reference: Logits | None = None,
    columns: int = 4,
    resolution: int = 240,
) -> Figure:
    """Samples, the classes' regions and the boundaries between them, a panel for each classifier [tax Fig. 3].

    Args:
        classifiers: At least one.
        class_names: A name for each class.
        reference: Logits of a classifier whose boundary is drawn dashed in every panel, such as the best one.
        columns: Panels in a row.
        resolution: Points along each side at which logits are computed.

    Raises:
        ValueError: If there is no classifier, or samples are not ``[N, 2]`` with one label each.
    """
    if not classifiers:
        raise ValueError("classifiers=[] is empty. Give at least one.")
    samples = [(np.asarray(each.x, dtype=np.float64), np.asarray(each.y)) for each in classifiers]
    for each, (x, y) in zip(classifiers, samples, strict=True):
        if x.ndim != 2 or x.shape[1] != 2 or not len(x) or y.shape != x.shape[:1]:
            raise ValueError(
                f"The samples of {each.title!r} have shape {x.shape} and labels {y.shape}. Give points of the plane "
                "[N, 2] with one class id each."
            )
    everything = np.concatenate([x for x, _ in samples])
    # all panels alike: boundaries are compared by eye
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.06 * np.maximum(high - low, 1e-6)
    axes_x, axes_y = (np.linspace(a, b, resolution) for a, b in zip(low - margin, high + margin, strict=True))
    grid = torch.from_numpy(np.stack(np.meshgrid(axes_x, axes_y), axis=-1).reshape(-1, 2).astype(np.float32))
    columns = min(columns, len(classifiers))
    rows = -(-len(classifiers) // columns)
    figure = blank(0.3 + 2.5 * columns if columns > 1 else 4.2, 0.6 + (2.6 if columns > 1 else 3.8) * rows)
    for place, (each, (x, y)) in enumerate(zip(classifiers, samples, strict=True)):
        axes: Axes = figure.add_subplot(rows, columns, place + 1)
        margins = _margins(each.logits, grid, resolution)
        shades = ListedColormap([COLORS[c % len(COLORS)] for c in range(len(margins))])
        place_of = (axes_x[0], axes_x[-1], axes_y[0], axes_y[-1])
        winner = margins.argmax(axis=0)
        axes.imshow(
            winner, cmap=shades, vmin=-0.5, vmax=len(margins) - 0.5, alpha=0.15, extent=place_of, origin="lower"
        )
        for c in np.unique(y):
            axes.plot(*x[y == c].T, ".", markersize=3, alpha=0.6, markeredgewidth=0, color=COLORS[c % len(COLORS)])
        _draw_boundary(axes, axes_x, axes_y, margins, "#000000", "-")
        if reference is not None:
            _draw_boundary(axes, axes_x, axes_y, _margins(reference, grid, resolution), "#555555", "--")
        axes.set_title(each.title, fontsize="small")
        axes.set_aspect("auto")
        axes.tick_params(labelsize="x-small", labelleft=place % columns == 0)
        axes.tick_params(labelbottom=place + columns >= len(classifiers))
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=COLORS[c % len(COLORS)], label=f"class {name}")
        for c, name in enumerate(class_names)
    ]
    handles.append(Line2D([], [], color="#000000", linewidth=1.4, label="boundary"))
    if reference is not None:
        handles.append(Line2D([], [], color="#555555", linewidth=1.0, linestyle="--", label="best boundary"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return figure


def _margins(logits: Logits, grid: Tensor, resolution: int) -> npt.NDArray[np.float64]:
    """By how much each class leads the best of the others ``[C, resolution, resolution]``."""
    with torch.no_grad():
        u = logits(grid).double().cpu()
    best = u.topk(2, dim=1).values
    rival = torch.where(u == best[:, :1], best[:, 1:], best[:, :1])
    return (u - rival).T.reshape(-1, resolution, resolution).numpy()


def _draw_boundary(
    axes: Axes,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    margins: npt.NDArray[np.float64],
    color: str,
    dashes: str,
) -> None:
    # of two classes one line is enough
    for field in margins[1:] if len(margins) == 2 else margins:
        if field.min() < 0 < field.max():
            axes.contour(x, y, field, levels=[0.0], colors=color, linestyles=dashes, linewidths=1.2)
