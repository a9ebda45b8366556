"""Head, medium and tail: classes grouped by their number of training samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lightning_perturb.checks import check_positive


@dataclass(frozen=True)
class ClassGroups:
    """Which classes are head, medium and tail.

    Args:
        head_from: Training samples from which a class is head.
        tail_below: Training samples below which a class is tail; those in between are medium.

    Raises:
        ValueError: If a class could be both, or a number is negative or none.
    """

    head_from: int
    tail_below: int

    def __post_init__(self) -> None:
        check_positive("tail_below", self.tail_below, zero=True)
        if math.isnan(self.head_from):
            raise ValueError(f"head_from={self.head_from!r} is no number of samples. Give one, 101 as published.")
        if self.head_from < self.tail_below:
            raise ValueError(f"head_from={self.head_from} is less than tail_below={self.tail_below}. Raise it.")

    def members(self, counts: Tensor) -> dict[str, Tensor]:
        """The classes of each group ``[C]``, in bool, by ``head``, ``medium`` and ``tail``.

        There are none where counts are unknown (all 0) or one group holds every class: its mean is that of all.

        Args:
            counts: Training samples of each class ``[C]``.
        """
        if not counts.any():
            return {}
        head, tail = counts >= self.head_from, counts < self.tail_below
        groups = {"head": head, "medium": ~head & ~tail, "tail": tail}
        return {} if any(bool(group.all()) for group in groups.values()) else groups


def known_means(values: Tensor, groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means over groups of classes; NaN marks a class that is not known, and a group without a known class has none.

    Args:
        values: A number of each class ``[C]``.
        groups: The classes of each group ``[C]``, in bool, by name.
    """
    known = ~values.isnan()
    counted = {name: known & group.to(values.device) for name, group in groups.items()}
    return {name: values[which].mean() for name, which in counted.items() if which.any()}
