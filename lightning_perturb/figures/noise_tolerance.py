"""The noise tolerance of robust losses, found numerically and beside the bounds of [narl Theorems 1-4].

``python -m lightning_perturb.figures.noise_tolerance FOLDER`` writes the table (CSV) and the figure.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_perturb.figures.save import save
from lightning_perturb.figures.style import COLORS, panels
from lightning_perturb.functional import (
    class_conditional_noise_bound,
    cross_entropy,
    gce_loss,
    gce_spread,
    js_loss,
    js_spread,
    loss_sum_range,
    mae_loss,
    noise_gaps,
    oracle_class_conditional_noise_bound,
    oracle_symmetric_noise_bounds,
    pair_transition,
    polysoft_loss,
    polysoft_spread,
    rce_loss,
    rce_spread,
    sl_loss,
    symmetric_noise_bounds,
    symmetric_transition,
)

Loss = Callable[[Tensor, Tensor], Tensor]

# what the search for a minimiser may still be away from it
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Conditions:
    """What was found for a loss, and what the theorems allow.

    Attributes:
        name: The loss and its hyperparameters.
        smallest_sum: Smallest sum of the loss over all labels, over predictions of every kind; NaN for an oracle.
        largest_sum: Largest one: the same for a symmetric loss [narl Definition 2]. Logits stay within +-30, so an
            unbounded loss has a large one.
        spread: What their difference is at most; infinite for an unbounded loss, NaN for an oracle.
        noisy_gap: R^eta(f*) - R^eta(f^) under symmetric noise: 0 where the loss is tolerant [narl Definition 1].
        noisy_bound: Its bound A.
        clean_gap: R(f*) - R(f^) under symmetric noise.
        clean_bound: Its bound A'.
        pair_gap: R^eta(f*) - R^eta(f^) under noise that turns each class into the next one.
        pair_bound: Its bound B.
    """

    name: str
    smallest_sum: float
    largest_sum: float
    spread: float
    noisy_gap: float
    noisy_bound: float
    clean_gap: float
    clean_bound: float
    pair_gap: float
    pair_bound: float

    @property
    def tolerant(self) -> bool:
        """Whether the loss is noise-tolerant, as far as the search shows, under both kinds of noise."""
        return max(self.noisy_gap, self.pair_gap) <= _TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether all that was found lies within the bounds."""
        room = [
            self.noisy_bound - self.noisy_gap,
            self.clean_gap - self.clean_bound,
            self.pair_bound - self.pair_gap,
        ]
        if not math.isnan(self.spread):
            room.append(self.spread - (self.largest_sum - self.smallest_sum))
        return min(room) >= -_TOLERANCE and min(self.noisy_gap, -self.clean_gap, self.pair_gap) >= -_TOLERANCE


def losses(num_classes: int) -> dict[str, tuple[Loss, float]]:
    """The losses that are looked at, by name, each with its spread.

    Args:
        num_classes: Number of classes, at least 2.
    """
    found: dict[str, tuple[Loss, float]] = {"CE": (cross_entropy, math.inf)}
    for q in (0.3, 0.7, 1.0):
        found[f"GCE, q = {q:g}"] = (partial(gce_loss, q=q), gce_spread(num_classes, q))
    for pi1 in (0.3, 0.7, 0.9):
        found[f"JS, pi1 = {pi1:g}"] = (partial(js_loss, pi1=pi1), js_spread(num_classes, pi1))
    for lam, d in ((5.0, 2.0), (5.0, 4.0)):
        found[f"PolySoft, lam = {lam:g}, d = {d:g}"] = (
            partial(polysoft_loss, lam=lam, d=d),
            polysoft_spread(num_classes, lam, d),
        )
    found["SL, gamma1 = 0.1, gamma2 = 1"] = (partial(sl_loss, gamma1=0.1, gamma2=1.0), math.inf)
    found["RCE"] = (rce_loss, rce_spread())
    found["MAE"] = (mae_loss, 0.0)
    return found


def oracles(eta: float, num_classes: int) -> dict[str, tuple[Loss, tuple[float, float]]]:
    """The losses of noisy samples under oracle hyperparameters, by name, with the bounds of [narl Theorem 3].

    Clean samples have cross-entropy.

    Args:
        eta: Rate of the symmetric noise.
        num_classes: Number of classes, at least 2.
    """
    return {
        "oracle GCE or JS": (mae_loss, oracle_symmetric_noise_bounds(eta, num_classes)),
        # below its loss a noisy sample's threshold leaves a constant
        "oracle PolySoft": (lambda logits, _: torch.zeros_like(logits[:, 0]), (0.0, 0.0)),
    }


def noise_conditions(
    num_classes: int = 10, symmetric: float = 0.4, pair: float = 0.4, samples: int = 2, steps: int = 100
) -> list[Conditions]:
    """Checks every loss numerically; some seconds for each.

    The noise comes with the theorems' definition: the given label of a noisy sample is another class.

    Args:
        num_classes: Number of classes, at least 2.
        symmetric: Rate of the symmetric noise.
        pair: Rate of the noise that turns each class into the next one, below 0.5.
        samples: Random starts of the search for the minimiser of the noisy risk.
        steps: Its steps.

    Raises:
        ValueError: If a rate is outside the range of the theorems.
    """
    transitions = symmetric_transition(num_classes, symmetric), pair_transition(num_classes, pair)
    found = []
    for name, (loss, spread) in losses(num_classes).items():
        smallest, largest = loss_sum_range(loss, num_classes)
        bounds = (math.inf, -math.inf), math.inf
        if spread < math.inf:
            bounds = (
                symmetric_noise_bounds(spread, symmetric, num_classes),
                class_conditional_noise_bound(spread, transitions[1]),
            )
        gaps = [noise_gaps(loss, transition, None, samples, steps) for transition in transitions]
        found.append(_conditions(name, (smallest, largest, spread), gaps, bounds))
    pair_bound = oracle_class_conditional_noise_bound(transitions[1])
    for name, (noisy_loss, symmetric_bounds) in oracles(symmetric, num_classes).items():
        gaps = [noise_gaps(cross_entropy, transition, noisy_loss, samples, steps) for transition in transitions]
        found.append(_conditions(name, (math.nan, math.nan, math.nan), gaps, (symmetric_bounds, pair_bound)))
    return found


def _conditions(
    name: str,
    sums: tuple[float, float, float],
    gaps: list[tuple[Tensor, Tensor]],
    bounds: tuple[tuple[float, float], float],
) -> Conditions:
    (noisy, clean), (pair, _) = ((float(a.mean()), float(b.mean())) for a, b in gaps)
    (high, low), pair_bound = bounds
    return Conditions(name, *sums, noisy, high, clean, low, pair, pair_bound)


def conditions_figure(found: Sequence[Conditions]) -> Figure:
    """What was found beside what the theorems allow, for each loss.

    Args:
        found: The losses, at least one.

    Raises:
        ValueError: If there are none.
    """
    if not found:
        raise ValueError("found=[] is empty. Give the conditions of at least one loss.")
    figure, plots = panels(3, "difference of risks", "", 11.0, 1.2 + 0.28 * len(found))
    parts = (
        ("symmetric noise: noisy risk", "noisy_gap", "noisy_bound", 1),
        ("symmetric noise: clean risk", "clean_gap", "clean_bound", -1),
        ("noise to the next class: noisy risk", "pair_gap", "pair_bound", 1),
    )
    places = list(range(len(found)))
    for axes, (title, gap, bound, sign) in zip(plots, parts, strict=True):
        gaps = [sign * getattr(row, gap) for row in found]
        bounds = [sign * getattr(row, bound) for row in found]
        axes.barh(places, gaps, color=COLORS[0], height=0.6, label="found")
        finite = [place for place in places if math.isfinite(bounds[place])]
        axes.plot([bounds[place] for place in finite], finite, "|", color=COLORS[1], markersize=12, markeredgewidth=2,
                  label="bound")  # fmt: skip
        # from 0 to the unbounded losses' large numbers
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xlim(left=0)
        axes.set_title(title if sign > 0 else f"{title} (negative)", fontsize="small")
        axes.set_yticks(places, [row.name for row in found] if axes is plots[0] else [""] * len(found))
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
    plots[-1].legend(frameon=False, fontsize="small")
    return figure


def print_conditions(found: Sequence[Conditions]) -> None:
    """Prints the table."""
    table = Table(title="Noise tolerance: found numerically, and bound (Theorems 1-4)")
    for name in ("loss", "sum over labels", "spread", "noisy gap", "A", "clean gap", "A'", "pair gap", "B", "tolerant"):
        table.add_column(name, justify="left" if name == "loss" else "right")
    for row in found:
        numbers = (row.spread, row.noisy_gap, row.noisy_bound, row.clean_gap, row.clean_bound, row.pair_gap)
        table.add_row(
            row.name,
            f"{row.smallest_sum:.3f} .. {row.largest_sum:.3f}" if not math.isnan(row.spread) else "-",
            *(f"{number:.4f}" if not math.isnan(number) else "-" for number in (*numbers, row.pair_bound)),
            "yes" if row.tolerant else "no",
        )
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)


def write_conditions(found: Sequence[Conditions], path: Path) -> Path:
    """Writes the table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(field.name for field in fields(Conditions)), "tolerant", "holds"])
        writer.writerows([*astuple(row), row.tolerant, row.holds] for row in found)
    return path


def main(words: Sequence[str]) -> None:
    """Prints the table, and writes it and its figure into a folder.

    Args:
        words: The folder.

    Raises:
        SystemExit: If it is not one word.
    """
    if len(words) != 1:
        raise SystemExit("Name one folder: python -m lightning_perturb.figures.noise_tolerance FOLDER")
    found = noise_conditions()
    print_conditions(found)
    print(write_conditions(found, Path(words[0]) / "noise_tolerance.csv"))
    print(save(conditions_figure(found), Path(words[0]) / "noise_tolerance.png"))


if __name__ == "__main__":
    main(sys.argv[1:])
