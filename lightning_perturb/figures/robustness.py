"""Accuracy under attack against the radius of the attack."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from lightning_perturb.figures.classes import in_percent
from lightning_perturb.figures.style import line, plot

_NORMS = {"linf": "l∞", "l2": "l2"}


def robustness_curve(
    curves: Mapping[str, Mapping[float, float]], norm: str = "linf", pixels: bool = True, ylabel: str = "test accuracy"
) -> Figure:
    """Accuracy against the radius of the attack, a line for each method.

    Args:
        curves: By the name of its line, the accuracy in 0..1 at each radius; 0 is the accuracy without attack.
        norm: ``linf`` or ``l2``.
        pixels: Whether radii are pixel values of [0, 1]; those of ``linf`` are drawn in steps of 1/255.
        ylabel: What the values are.

    Raises:
        ValueError: If there is no curve, or one has no radius.
    """
    if not curves:
        raise ValueError("curves={} is empty. Give the accuracies of at least one method.")
    whole = pixels and norm == "linf"
    unit = "pixel values of 0 to 255" if whole else "pixel values of [0, 1]" if pixels else "units of the input"
    figure, axes = plot(f"radius of the attack, {_NORMS[norm]}, {unit}", ylabel)
    for number, (name, curve) in enumerate(curves.items()):
        if not curve:
            raise ValueError(f"The curve {name!r} has no radius. Give at least the accuracy without attack, at 0.")
        radii = sorted(curve)
        x = [255 * radius if whole else radius for radius in radii]
        axes.plot(x, [curve[radius] for radius in radii], label=name, marker="o", linewidth=1.6, **line(number))
    axes.set_ylim(0, 1.02)
    axes.margins(x=0.02)
    in_percent(axes)
    axes.legend(frameon=False, fontsize="small")
    return figure
