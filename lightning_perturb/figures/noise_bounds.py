"""The bounds of [narl Theorems 1-4]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_perturb.figures.style import line, panels
from lightning_perturb.functional import (
    class_conditional_noise_bound,
    gce_spread,
    js_spread,
    oracle_class_conditional_noise_bound,
    oracle_symmetric_noise_bounds,
    pair_transition,
    polysoft_spread,
    rce_spread,
    symmetric_noise_bounds,
)

_ORACLE: dict[str, Any] = {"color": "#000000", "linestyle": "--", "linewidth": 1.6, "label": "oracle"}
_RATES = 200


def bound_coefficients(
    q: Sequence[float] = (0.3, 0.5, 0.7), pi1: Sequence[float] = (0.3, 0.5, 0.7, 0.9), largest: int = 100
) -> Figure:
    """What the bounds of GCE and JS grow with, by the number of classes, beside the oracle's 1 [narl Fig. 3].

    Args:
        q: Hyperparameters of GCE, in (0, 1].
        pi1: Hyperparameters of JS, in (0, 1].
        largest: Largest number of classes, at least 2.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if largest < 2:
        raise ValueError(f"largest={largest} is no number of classes. Give at least 2.")
    classes = list(range(2, largest + 1))
    figure, (gce, js) = panels(2, "number of classes $c$", "coefficient of the upper bound", 8.0)
    _draw_spreads(gce, "GCE, $q$", classes, q, gce_spread)
    _draw_spreads(js, "JS, $\\pi_1$", classes, pi1, js_spread)
    return figure


def _draw_spreads(
    axes: Axes, name: str, classes: Sequence[int], values: Sequence[float], spread: Callable[[int, float], float]
) -> None:
    for number, value in enumerate(values):
        axes.plot(classes, [spread(c, value) for c in classes], label=f"{name} = {value:g}", **line(number))
    axes.plot(classes, [1.0] * len(classes), **_ORACLE)
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize="small")


def bounds_by_noise_rate(
    num_classes: int = 10, q: float = 0.7, pi1: float = 0.7, lam: float = 5.0, d: float = 2.0
) -> Figure:
    """The bounds themselves by the noise rate, of each loss and of the oracle [narl Theorems 1-4].

    From left to right: A, how much higher the noisy risk of the clean minimiser can be under symmetric noise; A', how
    much lower its clean risk; and B, as A, under noise that turns each class into the next one.

    Args:
        num_classes: Number of classes, at least 2.
        q: Hyperparameter of GCE.
        pi1: Hyperparameter of JS.
        lam: Threshold of PolySoft.
        d: Degree of PolySoft.

    Raises:
        ValueError: If an argument is outside its range.
    """
    spreads = {
        f"GCE, $q$ = {q:g}": gce_spread(num_classes, q),
        f"JS, $\\pi_1$ = {pi1:g}": js_spread(num_classes, pi1),
        f"PolySoft, $\\lambda$ = {lam:g}, $d$ = {d:g}": polysoft_spread(num_classes, lam, d),
        "RCE": rce_spread(),
    }
    # short of the ends of the theorems' ranges, where A' is infinite and a class no longer is most likely kept
    symmetric = [0.98 * (1 - 1 / num_classes) * step / _RATES for step in range(_RATES + 1)]
    pairs = [0.499 * step / _RATES for step in range(_RATES + 1)]
    figure, (high, low, pair) = panels(3, "noise rate $\\eta$", "bound", 11.0)
    for number, (name, spread) in enumerate(spreads.items()):
        bounds = [symmetric_noise_bounds(spread, eta, num_classes) for eta in symmetric]
        high.plot(symmetric, [bound[0] for bound in bounds], label=name, **line(number))
        low.plot(symmetric, [bound[1] for bound in bounds], **line(number))
        turned = [class_conditional_noise_bound(spread, pair_transition(num_classes, eta)) for eta in pairs]
        pair.plot(pairs, turned, **line(number))
    bounds = [oracle_symmetric_noise_bounds(eta, num_classes) for eta in symmetric]
    high.plot(symmetric, [bound[0] for bound in bounds], **_ORACLE)
    low.plot(symmetric, [bound[1] for bound in bounds], **_ORACLE)
    turned = [oracle_class_conditional_noise_bound(pair_transition(num_classes, eta)) for eta in pairs]
    pair.plot(pairs, turned, **_ORACLE)
    high.set_title(f"symmetric, $A$, $c$ = {num_classes}", fontsize="small")
    low.set_title("symmetric, $A'$", fontsize="small")
    pair.set_title("to the next class, $B$", fontsize="small")
    # towards its end A' has no bound: what is shown goes four times as deep as in the middle
    middle = symmetric[len(symmetric) // 2]
    deepest = min(symmetric_noise_bounds(spread, middle, num_classes)[1] for spread in spreads.values())
    low.set_ylim(4 * deepest, -0.1 * deepest)
    high.legend(frameon=False, fontsize="small")
    return figure
